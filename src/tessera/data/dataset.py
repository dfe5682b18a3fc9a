"""The prepared dataset as arrays: the one reader that training and evaluation use.

Histories are kept as compressed rows (CSR): one flat array of items and the place where each user's part begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.files import identity
from tessera.artifacts.tables import ArtifactError, check_ids, read_table
from tessera.data.clock import SECONDS, Clock, read_clock

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

SPLITS = ("train", "valid", "test", "history")
"""Codes 0..3. A `history` row is neither trained on nor a target: a later target of its user may look back on it."""
TRAIN, VALID, TEST, HISTORY = range(4)
NO_TIME = int(np.iinfo(np.int64).min)
"""Stands for a missing time; beyond all times that are read, and times before 1970 are negative."""


@dataclass(frozen=True)
class Cases:
    """What a recommender is asked: for each case a user, the true next item, and everything before it."""

    users: Ints
    """(cases,) dense user ids, ascending; at most one case a user."""
    targets: Ints
    """(cases,) dense item ids."""
    offsets: Longs
    """(cases + 1,): the history of case `i` is `items[offsets[i]:offsets[i + 1]]`."""
    items: Ints
    """Histories in time order, one after the other."""
    times: npt.NDArray[np.float64] | None = None
    """Seconds beside `items`, NaN where no time is known; None where none is."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Longs:
        """(cases,) number of items in each history."""
        return np.diff(self.offsets)

    @cached_property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """(cases,) whether the target stands in the history."""
        owners = np.repeat(np.arange(len(self)), self.lengths)
        mask = np.zeros(len(self), bool)
        mask[owners[self.items == self.targets[owners]]] = True
        return mask

    def history(self, case: int) -> Ints:
        """The history of one case, oldest first."""
        return self.items[self.offsets[case] : self.offsets[case + 1]]

    def take(self, chosen: npt.NDArray[np.integer]) -> Cases:
        """Some of the cases, in the order of their numbers `chosen`."""
        flat, offsets = slices(self.offsets[:-1][chosen], self.lengths[chosen])
        times = None if self.times is None else self.times[flat]
        return Cases(self.users[chosen], self.targets[chosen], offsets, self.items[flat], times)


@dataclass(frozen=True)
class Dataset:
    """Users 1..`n_users`, items 1..`n_items` (0 is padding); user `u` owns the rows `offsets[u - 1]:offsets[u]`."""

    n_users: int
    n_items: int
    offsets: Longs
    """(n_users + 1,) where each user's rows begin."""
    items: Ints
    """(rows,) in time order within a user."""
    timestamps: Longs
    """(rows,) times as `clock` counts them, unix seconds unless the log is finer; `NO_TIME` where the source has
    none."""
    split: npt.NDArray[np.uint8]
    """(rows,) index into `SPLITS`. The train rows of a user come before all its other rows."""
    clock: Clock = SECONDS
    """What `timestamps` count."""

    @cached_property
    def users(self) -> Ints:
        """(rows,) the user of each row."""
        return np.repeat(np.arange(1, self.n_users + 1, dtype=np.int32), np.diff(self.offsets))

    def train_histories(self) -> tuple[Longs, Ints]:
        """Only what may be trained on: offsets (n_users + 1,) and items, as in `offsets` and `items`."""
        kept = self.split == TRAIN
        return _offsets(self.users[kept], self.n_users), self.items[kept]

    def train_times(self) -> npt.NDArray[np.float64]:
        """Seconds beside the items of `train_histories`."""
        times: npt.NDArray[np.float64] = self.seconds[self.split == TRAIN]
        return times

    @cached_property
    def seconds(self) -> npt.NDArray[np.float64]:
        """(rows,) times in seconds, NaN where the source has none."""
        return np.where(self.timestamps == NO_TIME, np.nan, self.timestamps / self.clock.ticks)

    @cached_property
    def train_counts(self) -> Longs:
        """(n_items + 1,) training interactions an item (its popularity); 0 marks cold items."""
        return np.bincount(self.items[self.split == TRAIN], minlength=self.n_items + 1).astype(np.int64)

    def cases(self, part: Literal["valid", "test"], times: bool = False) -> Cases:
        """The targets of a part, each with every row of the user strictly before it; `times` also gives when it was."""
        if part not in ("valid", "test"):
            raise ValueError(f"cases of part {part!r}: expected 'valid' or 'test'")
        rows = np.flatnonzero(self.split == SPLITS.index(part))
        users = self.users[rows]
        starts = self.offsets[users - 1]
        flat, offsets = slices(starts, rows - starts)
        return Cases(users, self.items[rows], offsets, self.items[flat], self.seconds[flat] if times else None)


def slices(starts: Longs, lengths: Longs) -> tuple[Longs, Longs]:
    """Flat positions start, ..., start + length - 1 of every slice in turn, and (slices + 1,) where each begins."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def _offsets(users: Ints, n_users: int) -> Longs:
    counts = np.bincount(users, minlength=n_users + 1)[1:]
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _split_codes(path: Path, column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    codes = pc.index_in(column, value_set=pa.array(SPLITS))
    row = pc.index(pc.is_null(codes), True).as_py()
    if row >= 0:
        raise ArtifactError(f"{path}: row {row}, column 'split': {column[row].as_py()!r} is not one of {SPLITS}")
    return np.asarray(codes.to_numpy(), dtype=np.uint8)


def _check_parts(path: Path, users: Ints, split: npt.NDArray[np.uint8]) -> None:
    """A user has one target a part at most, and no train row after any other."""
    late = np.flatnonzero((split[1:] == TRAIN) & (split[:-1] != TRAIN) & (users[1:] == users[:-1]))
    if len(late):
        raise ArtifactError(f"{path}: user {users[late[0]]} has a train row after a {SPLITS[split[late[0]]]} row")
    for part in (VALID, TEST):
        owners, counts = np.unique(users[split == part], return_counts=True)
        if (counts > 1).any():
            raise ArtifactError(
                f"{path}: user {owners[counts > 1][0]} has {counts.max()} {SPLITS[part]} rows, expected one at most"
            )


def load_dataset(folder: str | Path) -> Dataset:
    """Read `interactions.parquet`, `items.parquet` and `users.parquet` of a prepared dataset, in any row order.

    Raises:
        ArtifactError: a file is missing or of another kind, an id lies outside the dataset, or the split is not one.
    """
    folder = Path(folder)
    counts = {}
    for kind, key in (("items", "item"), ("users", "user")):
        ids = read_table(folder / f"{kind}.parquet", kind, [key])
        check_ids(folder / f"{kind}.parquet", ids, key, ids.num_rows)
        counts[kind] = ids.num_rows
    path = folder / "interactions.parquet"
    table = read_table(path, "interactions", ["user", "item", "timestamp", "position", "split"])
    check_ids(path, table, "user", counts["users"])
    check_ids(path, table, "item", counts["items"])
    split = _split_codes(path, table.column("split"))
    users = table.column("user").to_numpy()
    order = np.lexsort((table.column("position").to_numpy(), users))
    users, split = users[order], split[order]
    _check_parts(path, users, split)
    return Dataset(
        n_users=counts["users"],
        n_items=counts["items"],
        offsets=_offsets(users, counts["users"]),
        items=np.ascontiguousarray(table.column("item").to_numpy()[order]),
        timestamps=pc.fill_null(table.column("timestamp"), NO_TIME).to_numpy()[order],
        split=split,
        clock=read_clock(path),
    )


def read_raw_ids(folder: str | Path, kind: Literal["items", "users"]) -> list[str]:
    """Raw ids by dense id: position 0 is padding (an empty text)."""
    key = {"items": "item", "users": "user"}[kind]
    table = read_table(Path(folder) / f"{kind}.parquet", kind, [key, "raw_id"]).sort_by(key)
    return ["", *table.column("raw_id").to_pylist()]


def ids_digest(raw_ids: list[str]) -> str:
    """Fingerprint of a catalogue: its raw ids in their order."""
    return identity(*raw_ids)
