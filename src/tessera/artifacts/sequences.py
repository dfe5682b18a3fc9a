"""Item tables with several rows an item, such as a vector an attribute: in order, keyed by id and position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import ArtifactError, check_ids, read_table, write_table


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


def read_item_sequences(path: str | Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a table of several rows an item, in any row order.

    Returns:
        vectors (count + 1, n, dim) float32, zero where absent, row 0 for padding; present (count + 1, n) bool, where n
        is the most rows of an item and an item's rows come first.
    Raises:
        ArtifactError: wrong kind, ids outside 1..count, positions that are not 0, 1, ... of each item, or NaN or
            infinite values.
    """
    table = read_table(path, "item_sequences").sort_by([("item", "ascending"), ("position", "ascending")])
    check_ids(path, table, "item", count)
    items, positions = table.column("item").to_numpy(), table.column("position").to_numpy()
    starts = np.flatnonzero(np.diff(items, prepend=-1))
    expected = np.arange(len(items)) - np.repeat(starts, np.diff(starts, append=len(items)))
    if (wrong := positions != expected).any():
        row = int(wrong.argmax())
        raise ArtifactError(f"{path}: item {items[row]} has position {positions[row]}, expected {expected[row]}")
    embedding = table.column("embedding").combine_chunks()
    rows = embedding.flatten().to_numpy(zero_copy_only=False).reshape(len(items), embedding.type.list_size)
    if (bad := ~np.isfinite(rows).all(1)).any():
        raise ArtifactError(f"{path}: a vector of item {items[bad][0]} holds NaN or infinity")
    most = int(positions.max(initial=0)) + 1
    vectors = np.zeros((count + 1, most, rows.shape[1]), np.float32)
    present = np.zeros((count + 1, most), bool)
    vectors[items, positions] = rows
    present[items, positions] = True
    return vectors, present
