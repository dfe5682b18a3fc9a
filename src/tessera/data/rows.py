"""The raw log in memory: integer codes in numpy columns, so that ten million rows stay far below two gigabytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tessera.artifacts.tables import read_table
from tessera.data.clock import SECONDS, Clock, read_clock
from tessera.data.dataset import SPLITS, TRAIN, Ints, Longs

UNSAID = 255
"""Split of a row that the source puts into no part."""
Mask = npt.NDArray[np.bool_]


class LogError(ValueError):
    """A raw log from which the wanted dataset cannot be made."""


@dataclass(frozen=True)
class Rows:
    """Columns of equal length, ordered by user, then time, then the order of the source."""

    users: Ints
    """Codes 0..n-1, in the order of the raw ids."""
    items: Ints
    """Codes 0..n-1, in the order of the raw ids."""
    times: Longs | None
    """Times as `clock` counts them; None for a log without times, whose rows are in order as they stand."""
    ratings: npt.NDArray[np.float32]
    """NaN where there is none."""
    given: npt.NDArray[np.uint8]
    """The source's own split: index into `SPLITS`, or `UNSAID`."""
    clock: Clock = SECONDS
    """What `times` count."""

    def __len__(self) -> int:
        return len(self.users)

    def take(self, which: Mask | Longs) -> Rows:
        """Some of the rows, by mask or by place."""
        return replace(
            self,
            users=self.users[which],
            items=self.items[which],
            times=None if self.times is None else self.times[which],
            ratings=self.ratings[which],
            given=self.given[which],
        )

    def counts(self) -> dict[str, int]:
        """Interactions, users and items."""
        users, items = (int(np.count_nonzero(np.bincount(codes))) for codes in (self.users, self.items))
        return {"interactions": len(self), "users": users, "items": items}

    def starts(self) -> Longs:
        """(rows,) place of the first row of each row's user."""
        first = np.flatnonzero(np.diff(self.users, prepend=-1))
        return np.repeat(first, np.diff(np.append(first, len(self))))

    def positions(self) -> Ints:
        """(rows,) 0-based place in the user's history."""
        return (np.arange(len(self)) - self.starts()).astype(np.int32)


def natural_order(ids: pl.Series) -> Longs:
    """Places of the ids by length, then text: numbers in their order, and no trace of who came first in the log."""
    order = ids.to_frame("id").select(pl.arg_sort_by(pl.col("id").str.len_chars(), pl.col("id")))
    return order.to_series().cast(pl.Int64).to_numpy()


def stable_order(*keys: npt.NDArray[np.integer[Any]]) -> Longs:
    """Places of rows by whole numbers, the last key first; equal rows stay as they stand.

    As `np.lexsort`, several times faster: a radix sort, 16 bits at a time.
    """
    order = np.arange(len(keys[0]))
    if bool((keys[0][1:] >= keys[0][:-1]).all()):
        keys = keys[1:]
    for key in keys:
        # modulo 2^64 the distance from the smallest is right however far apart the two are
        rest = key.astype(np.int64).view(np.uint64) - key.min().astype(np.int64).view(np.uint64)
        digits = rest.astype("<u8", copy=False).view("<u2").reshape(-1, 4)
        for place in range(-(-int(rest.max()).bit_length() // 16)):
            order = order[np.argsort(digits[order, place], kind="stable")]
    return order


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Codes of a text column and the texts they stand for, in natural order."""
    unified = column.unify_dictionaries()
    texts = pl.Series(unified.chunk(0).dictionary if unified.num_chunks else [], dtype=pl.String)
    order = natural_order(texts)
    rank = np.empty(len(texts), np.int32)
    rank[order] = np.arange(len(texts), dtype=np.int32)
    codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in unified.chunks])
    return rank[codes], texts.gather(order).to_list()


def read_rows(path: Path, by_part: bool) -> tuple[Rows, list[str], list[str]]:
    """Read the raw log.

    Args:
        by_part: order a user's rows by the source's split first (train, valid, test), then by time.
    Returns:
        The rows, the raw ids of users and those of items by code.
    Raises:
        LogError: the log is empty, or only some of its rows have a time.
    """
    table = read_table(path, "raw_interactions", ["timestamp", "rating", "split", "row"])
    if not table.num_rows:
        raise LogError(f"{path}: holds no interactions")
    ids = pq.read_table(path, columns=["user", "item"], read_dictionary=["user", "item"])
    users, user_ids = _codes(ids.column("user"))
    items, item_ids = _codes(ids.column("item"))
    del ids
    stamps = table.column("timestamp")
    if 0 < stamps.null_count < len(stamps):
        row = pc.index(pc.is_null(stamps), True).as_py()
        raise LogError(
            f"{path}: row {row}, column 'timestamp': is null while other rows have a time; expected all or none"
        )
    times = None if stamps.null_count else stamps.to_numpy()
    parts = pc.fill_null(pc.index_in(table.column("split"), pa.array(SPLITS)).cast(pa.uint8()), UNSAID).to_numpy()
    ratings = pc.fill_null(table.column("rating"), float("nan")).to_numpy()
    keys: list[npt.NDArray[np.integer[Any]]] = [table.column("row").to_numpy()]
    if times is not None:
        keys.append(times)
    if by_part:
        keys.append(np.where(parts == UNSAID, TRAIN, parts))
    order = stable_order(*keys, users)
    return Rows(users, items, times, ratings, parts, read_clock(path)).take(order), user_ids, item_ids
