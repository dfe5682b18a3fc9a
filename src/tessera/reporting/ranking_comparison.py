"""Every pair of systems that rank the next item: each user's metric, averaged over the seeds of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tessera.evaluation.significance import (
    LEAST_USERS,
    bootstrap_interval,
    bootstrap_ratio_interval,
    least_p,
    pairwise,
)
from tessera.reporting.comparison import Comparison, Gain
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun, check_same_users, user_metrics
from tessera.reporting.runs import Array
from tessera.settings.evaluation import Significance

OUTSIDE = 0.05


@dataclass(frozen=True, kw_only=True)
class RankingComparison(Comparison[RankingRun]):
    """Pairs of systems on a metric that is a mean over users."""

    values: Array
    """(users, ranked)"""
    head: NDArray[np.bool_]
    """(users,) whether the target belongs to the head."""
    significance: Significance

    AVERAGED: ClassVar[str] = "a user's values are averaged over the seeds"

    def gains(self, one: int, other: int) -> list[Gain]:
        """Relative gains of all users, of head and of tail; differences where nothing is there to divide by, and none
        of nothing over nothing.
        """
        gains = []
        groups = (("", np.ones(len(self.values), bool)), ("Head", self.head), ("Tail", ~self.head))
        for name, members in groups:
            first, second = self.values[members, one], self.values[members, other]
            if len(first) and (first.any() or second.any()):
                gains.append(Gain(name, *self._gain(first, second)))
        return gains

    def _gain(self, mine: Array, theirs: Array) -> tuple[str, str]:
        """How much better some users fare, and between which ends that is."""
        drawn = self.outside, self.significance.resamples, self.significance.seed
        few = len(mine) < LEAST_USERS
        if theirs.mean() <= 0:
            low, high = bootstrap_interval(mine - theirs, *drawn)
            number, interval = f"{mine.mean() - theirs.mean():+.4f}", f"{low[0]:+.4f} to {high[0]:+.4f}"
        else:
            ends = None if few else bootstrap_ratio_interval(mine, theirs, *drawn)
            number = f"{mine.mean() / theirs.mean() - 1:+.1%}"
            interval = "interval not known" if ends is None else f"{ends[0]:+.1%} to {ends[1]:+.1%}"
        people = "one user" if len(mine) == 1 else f"{len(mine)} users"
        return number, f"of {people} alone, so no interval" if few else interval


def compare(table: RankingTable, metric: str) -> RankingComparison | None:
    """Intervals and pairs of a metric; None where it is no mean over users, or no user or competitor is there."""
    ranked = [entry for entry in table.ranked(metric) if not table.is_bound(entry)]
    settings = table.significance
    columns: dict[str, Array] = {}
    head: NDArray[np.bool_] = np.zeros(0, bool)
    first = None
    for entry in table.entries:
        judged = user_metrics(entry, table.evaluation)
        if metric not in judged.values or not len(judged.users):
            return None
        columns[entry.name] = judged.values[metric]
        if not table.is_bound(entry):
            first = first or (entry, judged)
            head = first[1].head
            check_same_users(entry, judged, *first)
    if not ranked:
        return None
    values = np.stack([columns[entry.name] for entry in ranked], axis=1)
    users, systems = values.shape
    pairs = systems * (systems - 1) // 2
    tested = users > 1 and systems > 1
    return RankingComparison(
        metric=metric,
        ranked=ranked,
        intervals=_intervals(columns, table),
        means=values.mean(0),
        users=users,
        p=pairwise(values, settings) if tested else np.ones((systems, systems)),
        least=least_p(settings, pairs, users) if tested else 0.0,
        level=settings.level,
        outside=OUTSIDE,
        values=values,
        head=head,
        significance=settings,
    )


def _intervals(columns: dict[str, Array], table: RankingTable) -> dict[str, tuple[float, float]]:
    """Name of a row -> the interval of its mean, where users are enough; rows of as many share their resamples."""
    intervals: dict[str, tuple[float, float]] = {}
    for users in {len(values) for values in columns.values() if len(values) >= LEAST_USERS}:
        names = [name for name, values in columns.items() if len(values) == users]
        stacked = np.stack([columns[name] for name in names], axis=1)
        settings = table.significance
        low, high = bootstrap_interval(stacked, OUTSIDE, settings.resamples, settings.seed)
        intervals |= {name: (float(low[n]), float(high[n])) for n, name in enumerate(names)}
    return intervals
