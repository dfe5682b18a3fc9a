"""Every pair of systems that rank the next item: each user's metric, averaged over the seeds of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tessera.evaluation.significance import bootstrap_interval, bootstrap_ratio_interval, least_p, pairwise
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
        """Relative gains of all users, of head and of tail; those are left out where nothing is divided by."""
        gains = []
        groups = (("", np.ones(len(self.values), bool)), ("Head", self.head), ("Tail", ~self.head))
        for name, members in groups:
            first, second = self.values[members, one], self.values[members, other]
            if not len(first) or second.mean() <= 0:
                continue
            settings = self.significance
            ends = bootstrap_ratio_interval(first, second, self.outside, settings.resamples, settings.seed)
            interval = f"{ends[0]:+.1%} to {ends[1]:+.1%}" if ends is not None else "interval not known"
            gains.append(Gain(name, f"{first.mean() / second.mean() - 1:+.1%}", interval))
        return gains


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
    """Name of a row -> the interval of its mean; rows of as many users share their resamples."""
    intervals: dict[str, tuple[float, float]] = {}
    for users in {len(values) for values in columns.values()}:
        names = [name for name, values in columns.items() if len(values) == users]
        stacked = np.stack([columns[name] for name in names], axis=1)
        settings = table.significance
        low, high = bootstrap_interval(stacked, OUTSIDE, settings.resamples, settings.seed)
        intervals |= {name: (float(low[n]), float(high[n])) for n, name in enumerate(names)}
    return intervals
