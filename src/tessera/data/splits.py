"""Which interaction trains, validates and tests. Ties in time keep the order of the source.

Each function returns one code a row: an index into `SPLITS`, or `DROPPED` for rows after the last target of a user,
which may neither train (they are in the future) nor be looked back on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tessera.data.cleaning import midnight
from tessera.data.clock import SECONDS, Clock
from tessera.data.dataset import HISTORY, TEST, TRAIN, VALID, Longs
from tessera.data.rows import UNSAID, LogError, Mask, Rows
from tessera.settings.datasets import GlobalTemporal, SessionSplit

DROPPED = 255
Codes = npt.NDArray[np.uint8]


def leave_one_out(rows: Rows) -> Codes:
    """The last row of a user tests, the one before validates, the rest trains; users with fewer than 3 only train."""
    split = np.full(len(rows), TRAIN, np.uint8)
    ends = np.append(np.flatnonzero(np.diff(rows.users)), len(rows) - 1)
    long = rows.positions()[ends] >= 2
    split[ends[long]] = TEST
    split[ends[long] - 1] = VALID
    return split


def cuts(times: Longs | None, settings: GlobalTemporal | SessionSplit, clock: Clock = SECONDS) -> tuple[int, int]:
    """The two moments, as the clock counts, from which rows validate and test; a share counts the `times` that are
    given: those of interactions, or of the ends of sessions.

    Rows at the very moment of a cut fall after it, so equal times never stand on both sides.

    Raises:
        LogError: the log has no times, or the cuts leave a part without rows.
    """
    if times is None:
        instead = "leave_one_out or given" if settings.kind == "global_temporal" else "given"
        raise LogError(f"split {settings.kind} needs times, but the log has none; use {instead}")
    ordered = np.sort(times)
    what = "rows" if settings.kind == "global_temporal" else "sessions"

    def moment(value: float | str, before: int) -> int:
        if isinstance(value, str):
            return midnight(value, clock)
        return int(ordered[max(0, before - math.ceil(value * len(ordered)))])

    test = moment(settings.test, len(ordered))
    valid = moment(settings.valid, int(np.searchsorted(ordered, test)))
    sizes = np.diff(np.searchsorted(ordered, [valid, test]), prepend=0, append=len(ordered))
    for name, size in zip(("train", "valid", "test"), sizes, strict=True):
        if size <= 0:
            raise LogError(
                f"split {settings.kind} leaves no {name} {what}: cuts at {clock.text(valid)} and {clock.text(test)}, "
                f"log from {clock.text(int(ordered[0]))} to {clock.text(int(ordered[-1]))}"
            )
    return valid, test


def global_temporal(rows: Rows, moments: tuple[int, int], settings: GlobalTemporal) -> Codes:
    """Rows before the first cut train; a user has one target between the cuts and one after the last.

    A target has at least one earlier row. Rows after the first cut that come before a target of their user are its
    `history`; the others are dropped. Nothing after the first cut trains.
    """
    assert rows.times is not None
    part = np.searchsorted(np.array(moments), rows.times, side="right").astype(np.uint8)
    draw = np.random.default_rng(settings.seed).random((3, int(rows.users.max()) + 1))
    targets = np.zeros(len(rows), bool)
    for code in (VALID, TEST):
        candidates = np.flatnonzero((part == code) & (rows.positions() > 0))
        if settings.target == "new" and code == TEST:
            candidates = _new_before_others(rows, candidates, part == TRAIN)
        targets[_one_a_user(rows.users, candidates, settings.target, draw[code])] = True
    return _with_history(rows, part, targets)


def _new_before_others(rows: Rows, candidates: Longs, trained: Mask) -> Longs:
    """Of users with a candidate whose item nothing trains on, these candidates alone; of all others, all."""
    new = np.bincount(rows.items[trained], minlength=int(rows.items.max()) + 1)[rows.items[candidates]] == 0
    users = np.zeros(int(rows.users.max()) + 1, bool)
    users[rows.users[candidates[new]]] = True
    kept: Longs = candidates[new | ~users[rows.users[candidates]]]
    return kept


def _one_a_user(
    users: npt.NDArray[np.int32], indices: Longs, which: str, draw: npt.NDArray[np.float64] | None = None
) -> Longs:
    """One of the places of each user: the first, the last, or by a number in [0, 1) that the user drew."""
    owners, first, counts = np.unique(users[indices], return_index=True, return_counts=True)
    if which == "last":
        first = first + counts - 1
    elif which == "random":
        assert draw is not None
        first = first + (draw[owners] * counts).astype(np.int64)
    chosen: Longs = indices[first]
    return chosen


def _with_history(rows: Rows, part: Codes, targets: Mask) -> Codes:
    """Train rows and targets keep their part; other rows before their user's last target are history."""
    last = np.full(int(rows.users.max()) + 1, -1, np.int64)
    indices = np.flatnonzero(targets)
    np.maximum.at(last, rows.users[indices], indices)
    split = np.where(np.arange(len(rows)) < last[rows.users], HISTORY, DROPPED).astype(np.uint8)
    kept = (part == TRAIN) | targets
    split[kept] = part[kept]
    return split


def ends(rows: Rows) -> Longs | None:
    """(users,) when the last row of each user is, in the order of the users; None without times."""
    return None if rows.times is None else rows.times[np.append(np.flatnonzero(np.diff(rows.users)), len(rows) - 1)]


def parts_of_sessions(rows: Rows, moments: tuple[int, int] | None) -> Codes:
    """(rows,) the part that the user of each row belongs to as a whole: by the time of its last row, so that nothing
    trains that is later than a cut; without cuts as the source says of that row."""
    last = np.append(np.flatnonzero(np.diff(rows.users)), len(rows) - 1)
    if moments is None:
        part = np.where(rows.given[last] == UNSAID, TRAIN, rows.given[last])
    else:
        assert rows.times is not None
        part = np.searchsorted(np.array(moments), rows.times[last], side="right")
    return np.repeat(part, np.diff(last, prepend=-1)).astype(np.uint8)


def sessions(rows: Rows, part: Codes) -> Codes:
    """Sessions as a whole: of one that validates or tests, the last row is the target and all before it are `history`.

    Args:
        rows: whose users are sessions of at least two rows.
        part: (rows,) what `parts_of_sessions` gives.
    """
    split = part.copy()
    before = np.append(np.diff(rows.users) == 0, False)
    split[before & (part != TRAIN)] = HISTORY
    return split


def none(rows: Rows) -> Codes:
    """Every row trains."""
    return np.full(len(rows), TRAIN, np.uint8)


def given_parts(rows: Rows) -> Codes:
    """The source's own part of each row, and for a user with a test row but no valid one the last train row as that.

    Rows that the source puts nowhere train. A last train row stays one where no other remains to train.
    """
    part = np.where(rows.given == UNSAID, TRAIN, rows.given).astype(np.uint8)
    tested = np.bincount(rows.users[part == TEST], minlength=int(rows.users.max()) + 1) > 0
    validated = np.bincount(rows.users[part == VALID], minlength=len(tested)) > 0
    last_train = _one_a_user(rows.users, np.flatnonzero(part == TRAIN), "last")
    owners = rows.users[last_train]
    moved = tested[owners] & ~validated[owners] & (rows.positions()[last_train] > 0)
    part[last_train[moved]] = VALID
    return part


def given(rows: Rows) -> Codes:
    """The source's own parts; rows that it puts nowhere train.

    A user's first valid and first test row (with a row before it) are its targets. Where the source gives a user a
    test row but no valid one, the last train row validates, if another remains to train.

    Raises:
        LogError: the source says of no row that it tests.
    """
    part = given_parts(rows)
    if not (part == TEST).any():
        raise LogError("split given: the source marks no row as test; use leave_one_out or global_temporal")
    targets = np.zeros(len(rows), bool)
    for code in (VALID, TEST):
        candidates = np.flatnonzero((part == code) & (rows.positions() > 0))
        targets[_one_a_user(rows.users, candidates, "first")] = True
    return _with_history(rows, part, targets)
