"""Sessions in the place of users: where one begins, what it is called, and which are too short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tessera.data.cleaning import Funnel
from tessera.data.dataset import TRAIN, Ints
from tessera.data.log import SESSION
from tessera.data.rows import UNSAID, LogError, Mask, Rows
from tessera.settings.datasets import Sessions, SessionsByGap

SHORTEST = 2
"""Items of a session: one to read and one to predict."""


def cut_sessions(
    rows: Rows, user_ids: list[str], settings: Sessions, by_part: bool, funnel: Funnel
) -> tuple[Rows, list[str]]:
    """The rows with sessions as their users; sessions of one row are dropped.

    Args:
        rows: in the order that `Rows` promises.
        user_ids: raw ids of the users by code.
        by_part: whether the source's own parts are kept, so that no session may lie in two.
        funnel: counts what each step leaves; sessions stand there as users.
    Returns:
        The rows, and raw ids of the sessions by code: `user/time`, where the time is that of the session's first row as
        the log's clock counts it, and not a number in a row, which would change with every row that is read before.
    Raises:
        LogError: a gap is asked of a log without times, a session lies in two parts, or none has two rows.
    """
    if isinstance(settings, SessionsByGap):
        rows, user_ids = _by_gap(rows, user_ids, settings, by_part)
        step = f"sessions: a new one after {settings.minutes:g} minutes"
    else:
        step = "sessions as the log has them"
        if by_part:
            _check_parts(rows, user_ids)
    funnel.count(step, rows)
    return funnel.count("sessions of one item dropped", rows.take(_long_enough(rows))), user_ids


def _by_gap(rows: Rows, user_ids: list[str], settings: SessionsByGap, by_part: bool) -> tuple[Rows, list[str]]:
    if rows.times is None:
        raise LogError(
            "sessions: a gap needs times, but the log has none; name a column of sessions, or say {kind: given} where "
            "its users are sessions"
        )
    if not rows.clock.dated:
        raise LogError("sessions: a gap of minutes is asked of a log whose times are no dates but say an order")
    gap = settings.minutes * 60 * rows.clock.ticks
    begins = np.diff(rows.users, prepend=-1) != 0
    begins[1:] |= np.diff(rows.times) > gap
    if by_part:  # rows of a part stand together
        begins[1:] |= np.diff(_parts(rows)) != 0
    first = np.flatnonzero(begins)
    # a part of the source may begin at the very time of another session of its user
    starts = zip(rows.users[first], rows.times[first], strict=True)
    names = [f"{user_ids[user]}{SESSION}{time}" for user, time in starts]
    if by_part:
        names = [f"{name}{SESSION}{part}" for name, part in zip(names, _parts(rows)[first], strict=True)]
    return replace(rows, users=(np.cumsum(begins) - 1).astype(np.int32)), names


def _parts(rows: Rows) -> Ints:
    """(n,) the part of each row; one of which the source says none trains."""
    return np.where(rows.given == UNSAID, TRAIN, rows.given).astype(np.int32)


def _check_parts(rows: Rows, user_ids: list[str]) -> None:
    mixed = np.flatnonzero((np.diff(rows.users) == 0) & (np.diff(_parts(rows)) != 0))
    if len(mixed):
        raise LogError(
            f"split given: the source puts rows of session {user_ids[rows.users[mixed[0]]]!r} into several parts; a "
            "session is held out as a whole"
        )


def _long_enough(rows: Rows) -> Mask:
    counts = np.bincount(rows.users)
    kept: Mask = counts[rows.users] >= SHORTEST
    return kept
