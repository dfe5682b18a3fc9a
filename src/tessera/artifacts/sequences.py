"""Item tables with several rows an item, such as a vector an attribute: in order, keyed by id and position."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.artifacts.tables import ArtifactError, check_ids, read_table, write_table

_ROWS = 8192
"""Rows that are read at a time."""


def write_item_sequences(
    path: str | Path,
    items: np.ndarray,
    names: Sequence[str],
    vectors: np.ndarray,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Write rows (n,) of items, grouped by item and in each item's order; what no item has is left out.

    Args:
        path: Parquet of the kind `item_sequences`: item, position (from 0), name, embedding.
        items: (n,) dense ids.
        names: (n,) what each row tells, e.g. the attribute's name.
        vectors: (n, dim) float32.
    """
    starts = np.flatnonzero(np.diff(items, prepend=-1))
    positions = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    table = pa.table(
        {
            "item": pa.array(items, pa.int32()),
            "position": pa.array(positions, pa.int32()),
            "name": pa.array(list(names), pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    write_table(path, table, "item_sequences", settings, inputs)


class ItemSequences(NamedTuple):
    """Several rows an item, of which equal ones are kept once, in a file that is mapped into memory."""

    values: np.ndarray
    """(values, dim) the distinct rows."""
    value_index: np.ndarray
    """(items + 1, n) int64: which value stands where, an item's first; `len(values)` stands for none."""
    folder: Path | None = None
    """Where there is room for more files of this size."""

    @property
    def present(self) -> np.ndarray:
        """(items + 1, n) bool: where there is a row."""
        return self.value_index < len(self.values)

    @classmethod
    def of(cls, vectors: np.ndarray, present: np.ndarray) -> ItemSequences:
        """From vectors (items + 1, n, dim), which are there where `present` (items + 1, n) says so."""
        values, inverse = np.unique(vectors[present], axis=0, return_inverse=True)
        index = np.full(present.shape, len(values))
        index[present] = inverse.reshape(-1)
        return cls(values, index)

    def dense(self) -> np.ndarray:
        """(items + 1, n, dim) vectors, zero where absent."""
        rows: np.ndarray = np.concatenate([self.values, np.zeros((1, self.values.shape[1]), self.values.dtype)])
        return np.asarray(rows[self.value_index])


def read_item_sequences(path: str | Path, count: int) -> ItemSequences:
    """Read a table of several rows an item, in any row order; its vectors are never all in memory.

    Raises:
        ArtifactError: wrong kind, ids outside 1..count, positions that are not 0, 1, ... of each item, or NaN or
            infinite values.
    """
    keys = read_table(path, "item_sequences", ["item", "position"])
    check_ids(path, keys, "item", count)
    items, positions = keys.column("item").to_numpy(), keys.column("position").to_numpy()
    _check_positions(path, items, positions)
    numbers, values = _distinct(path, items)
    index = np.full((count + 1, int(positions.max(initial=0)) + 1), len(values))
    index[items, positions] = numbers
    return ItemSequences(values, index, Path(path).parent)


def _check_positions(path: str | Path, items: np.ndarray, positions: np.ndarray) -> None:
    order = np.lexsort((positions, items))
    items, positions = items[order], positions[order]
    starts = np.flatnonzero(np.diff(items, prepend=-1))
    expected = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    if (wrong := positions != expected).any():
        row = int(wrong.argmax())
        raise ArtifactError(f"{path}: item {items[row]} has position {positions[row]}, expected {expected[row]}")


def _distinct(path: str | Path, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which distinct row each row is, (rows,), and the distinct rows, (values, dim)."""
    numbers = np.empty(len(items), np.int64)
    seen: dict[bytes, int] = {}
    start = 0
    with (
        pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as table,
        scratch(Path(path).parent) as file,
    ):
        dim = table.schema_arrow.field("embedding").type.list_size
        for batch in table.iter_batches(_ROWS, columns=["embedding"], use_threads=False):
            rows = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
            if (bad := ~np.isfinite(rows).all(1)).any():
                raise ArtifactError(f"{path}: a vector of item {items[start + bad.argmax()]} holds NaN or infinity")
            for number, row in enumerate(rows, start):
                known = len(seen)
                # equal digests of 128 bits are equal rows
                numbers[number] = slot = seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), known)
                if slot == known:
                    file.write(row.tobytes())
            start += len(rows)
        return numbers, mapped(file, len(seen), dim, np.dtype(np.float32))


@contextmanager
def scratch(folder: Path | None) -> Iterator[IO[bytes]]:
    """A file without a name, gone with the last that reads it: in the folder, or elsewhere if it cannot be there."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError:  # somebody else's folder
        file = tempfile.TemporaryFile()  # noqa: SIM115
    with file:
        yield file


def mapped(file: IO[bytes], rows: int, dim: int, dtype: np.dtype[Any]) -> np.ndarray:
    """What was written to a file, (rows, dim), read from there whenever it is needed."""
    file.flush()
    if not rows * dim:
        return np.zeros((rows, dim), dtype)
    # copy on write: torch wants what it could write to
    return np.memmap(file, dtype, mode="c", shape=(rows, dim))
