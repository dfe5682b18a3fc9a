"""From the log to what is kept of it, step by step, with the counts that each step leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from tessera.artifacts.logs import log
from tessera.data.clock import SECONDS, Clock
from tessera.data.dataset import Ints, Longs, slices
from tessera.data.rows import LogError, Mask, Rows, stable_order
from tessera.settings.datasets import Cleaning, Core

_PASSES = 16
"""Sorting the rows for `_peeled` takes about as long as so many passes over them."""


class Funnel:
    """Counts after each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def count(self, step: str, rows: Rows) -> Rows:
        """Note what a step left.

        Raises:
            LogError: it left nothing.
        """
        self.steps.append({"step": step, **rows.counts()})
        if not len(rows):
            steps = " -> ".join(f"{s['step']}: {s['interactions']:,}" for s in self.steps)
            raise LogError(f"cleaning leaves no interactions ({steps}); loosen the last of these steps")
        return rows


def midnight(day: str, clock: Clock = SECONDS) -> int:
    """The start of a day (UTC), given as 'YYYY-MM-DD', as a clock counts it.

    Raises:
        LogError: there is no such day, or the clock knows no days.
    """
    if not clock.dated:
        raise LogError(f"{day!r} is asked of a log whose times are no dates but numbers that say an order")
    try:
        parsed = date.fromisoformat(day)
    except ValueError as error:
        raise LogError(f"{day!r} is not a day 'YYYY-MM-DD' ({error})") from None
    moment = int(datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC).timestamp()) * clock.ticks
    ends = np.iinfo(np.int64)
    return max(int(ends.min), min(moment, int(ends.max)))  # nanoseconds end in 2262


def filter_rows(rows: Rows, settings: Cleaning, funnel: Funnel) -> Rows:
    """Rating threshold, date range, exact duplicates and repeat policy, in this order.

    Raises:
        LogError: a step leaves nothing, or dates are asked of a log without times.
    """
    if settings.min_rating is not None:
        low = rows.ratings < settings.min_rating  # false where there is no rating
        rows = funnel.count(f"rating at least {settings.min_rating:g}", rows.take(~low))
    for name, day in (("since", settings.since), ("until", settings.until)):
        if day is None:
            continue
        if rows.times is None:
            raise LogError(f"cleaning.{name} is {day!r}, but the log has no times")
        start = midnight(day, rows.clock)
        end = start + int(timedelta(days=1).total_seconds()) * rows.clock.ticks
        rows = funnel.count(f"{name} {day}", rows.take(rows.times >= start if name == "since" else rows.times < end))
    if settings.duplicates == "drop" and rows.times is not None:
        rows = funnel.count("exact duplicates dropped", _without_duplicates(rows))
    if settings.repeats != "keep":
        rows = funnel.count(f"{settings.repeats} meeting of an item", rows.take(_meetings(rows, settings.repeats)))
    return rows


def _pairs(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return rows.users.astype(np.int64) * (int(rows.items.max()) + 1) + rows.items


def _without_duplicates(rows: Rows) -> Rows:
    """Without rows equal to an earlier one in user, item and time.

    What stays has the highest rating of its equals: of a view and a click in one second, the click. What the source
    holds out says nothing of a row that trains.
    """
    assert rows.times is not None
    pairs = _pairs(rows)
    order = np.lexsort((rows.times, pairs))  # stable: the first row of equals stays first
    first = np.ones(len(rows), bool)
    first[1:] = (np.diff(pairs[order]) != 0) | (np.diff(rows.times[order]) != 0)
    if first.all():
        return rows
    stays = order[first]
    counted = np.where(
        rows.given[order] == np.repeat(rows.given[stays], np.diff(np.append(np.flatnonzero(first), len(rows)))),
        rows.ratings[order],
        np.nan,
    )
    ratings = rows.ratings.copy()
    ratings[stays] = np.fmax.reduceat(counted, np.flatnonzero(first))  # of a number and none, it
    raised = np.count_nonzero((ratings != rows.ratings) & ~np.isnan(ratings))
    if raised:
        log.info("%s rows take the higher rating of a duplicate", f"{raised:,}")
    kept = np.zeros(len(rows), bool)
    kept[stays] = True
    return replace(rows, ratings=ratings).take(kept)


def _meetings(rows: Rows, which: str) -> Mask:
    """The first or the last row of each user and item."""
    pairs = _pairs(rows)
    kept = np.zeros(len(rows), bool)
    if which == "first":
        kept[np.unique(pairs, return_index=True)[1]] = True
    else:
        kept[len(rows) - 1 - np.unique(pairs[::-1], return_index=True)[1]] = True
    return kept


def k_core(rows: Rows, core: Core, counted: Mask | None = None) -> Mask:
    """Iterative k-core over users and items: which rows stay.

    Passes over what is left settle most logs. Where each takes little away (chains), the rest is peeled row by row, so
    that the time stays linear in the rows.

    Args:
        counted: only these rows are counted, and only these are removed for their item; a user who fails loses all
            rows. This is the train-only core: what comes later decides nothing and stays, so that targets among
            rare items are judged (as cold ones), not hidden.
    """
    kept = np.ones(len(rows), bool) if counted is None else counted.copy()
    indices = np.flatnonzero(kept)
    users, items = rows.users[indices], rows.items[indices]
    n_users, n_items = int(rows.users.max()) + 1, int(rows.items.max()) + 1
    budget = _PASSES * (len(indices) + n_users + n_items)
    while True:
        strong_users = np.bincount(users, minlength=n_users) >= core.users
        strong_items = np.bincount(items, minlength=n_items) >= core.items
        strong = strong_users[users] & strong_items[items]
        if strong.all():
            break
        budget -= len(indices) + n_users + n_items
        if budget <= 0:
            strong = _peeled(_Side(users, core.users, n_users), _Side(items, core.items, n_items))
        kept[indices[~strong]] = False
        indices, users, items = indices[strong], users[strong], items[strong]
    if counted is None:
        return kept
    result: Mask = (kept | ~counted) & strong_users[rows.users]
    return result


class _Side:
    """The users or the items of rows, and how many rows each has left."""

    def __init__(self, codes: Ints, least: int, size: int) -> None:
        self.codes, self.least = codes, least
        self.left = np.bincount(codes, minlength=size)
        self._counts = self.left.copy()
        self._order = stable_order(codes)
        self._starts = np.cumsum(self._counts) - self._counts

    def weak(self, among: Longs) -> Longs:
        """Those that have some rows left, but too few; each once."""
        left = self.left[among]
        return np.unique(among[(left > 0) & (left < self.least)])

    def rows(self, of: Longs) -> Longs:
        """Places of their rows, gone or not."""
        return self._order[slices(self._starts[of], self._counts[of])[0]]


def _peeled(side: _Side, other: _Side) -> Mask:
    """The rows of the k-core: users and items fall in turns, and only who lost a row is looked at again."""
    kept = np.ones(len(side.codes), bool)
    touched, untried = np.arange(len(side.left)), np.arange(len(other.left))
    while len(touched) or len(untried):
        weak = side.weak(touched)
        gone = side.rows(weak)
        gone = gone[kept[gone]]
        kept[gone] = False
        side.left[weak] = 0
        np.subtract.at(other.left, other.codes[gone], 1)
        touched, untried = np.concatenate([untried, other.codes[gone]]), untried[:0]
        side, other = other, side
    return kept


def cap_histories(rows: Rows, longest: int, capped: Mask | None = None) -> Mask:
    """The most recent `longest` rows of each user stay; with `capped`, only those rows are counted and removed."""
    within = np.ones(len(rows), bool) if capped is None else capped
    seen = np.cumsum(within)
    starts = rows.starts()
    last = np.searchsorted(starts, starts, side="right") - 1  # place of the last row of each row's user
    later = seen[last] - seen  # counted rows of the same user after this one
    result: Mask = ~within | (later < longest)
    return result
