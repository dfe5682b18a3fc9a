"""Every pair of click-through models: an AUC is no mean over users, so resamples of users are compared.

All models share their resamples, as in the table: a difference between two is paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from tessera.evaluation import clicks
from tessera.evaluation.significance import enough_resamples, holm
from tessera.reporting.comparison import Comparison, Gain
from tessera.reporting.ctr import TESTED, ClickRun, ClickTable, resampled, significance
from tessera.reporting.runs import Array, label
from tessera.reporting.tables import Column


@dataclass(frozen=True, kw_only=True)
class ClickComparison(Comparison[ClickRun]):
    """Pairs of models on a metric of all impressions."""

    draws: Sequence[Mapping[str, Array]]
    """Of each of `ranked`: metric -> (resamples,)."""
    table: ClickTable

    AVERAGED: ClassVar[str] = "metrics are averaged over the seeds, in every resample too"
    DIGITS: ClassVar[int] = 4

    def gains(self, one: int, other: int) -> list[Gain]:
        """Differences of the main metric, and of the others that are tested; not relative, since 0.5 is chance."""
        gains = []
        for metric in (self.metric, *(metric for metric in TESTED if metric != self.metric)):
            column = Column(metric)
            cells = [self.table.cell(self.ranked[place], column) for place in (one, other)]
            if cells[0] is None or cells[1] is None:
                continue
            ends = clicks.interval(self.draws[one][metric] - self.draws[other][metric], self.outside)
            interval = f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends is not None else "interval not known"
            lower = " (lower is better)" if self.table.metric(column).better == "smaller" else ""
            name = f"{metric[:1].upper()}{metric[1:]} over {label(self.ranked[other])}{lower}"
            gains.append(Gain("" if metric == self.metric else name, f"{cells[0].mean - cells[1].mean:+.4f}", interval))
        return gains


def compare(table: ClickTable, metric: str = "AUC") -> ClickComparison | None:
    """Pairs of models on a metric; None where no competitor is there, or one lacks the metric.

    Args:
        metric: AUC or GAUC.
    """
    ranked = [entry for entry in table.ranked(metric) if not table.is_bound(entry)]
    column = Column(metric)
    if not ranked or any(table.cell(entry, column) is None for entry in ranked):
        return None
    evaluation = table.evaluation
    pairs = list(combinations(range(len(ranked)), 2))
    resamples = enough_resamples(significance(evaluation), max(1, len(pairs)))
    by_name = resampled(table, resamples, ranked)
    draws = [by_name[entry.name] for entry in ranked]
    means = np.array([table.mean(entry, metric) for entry in ranked])
    p = np.ones((len(ranked), len(ranked)))
    if pairs:
        tested = [clicks.paired_p(draws[a][metric] - draws[b][metric], means[a] - means[b]) for a, b in pairs]
        for (a, b), corrected in zip(pairs, holm(np.array(tested)).tolist(), strict=True):
            p[a, b] = p[b, a] = corrected
    cells = {entry.name: table.cell(entry, column) for entry in table.entries}
    return ClickComparison(
        metric=metric,
        ranked=ranked,
        intervals={
            name: (c.low, c.high) for name, c in cells.items() if c and c.low is not None and c.high is not None
        },
        means=means,
        users=table.judged.users,
        p=p,
        least=min(1.0, len(pairs) / (1 + resamples)),
        level=evaluation.level,
        outside=evaluation.level,
        draws=draws,
        table=table,
    )
