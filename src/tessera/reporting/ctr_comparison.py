"""Every pair of click-through models: an AUC is no mean over users, so resamples of users are compared.

All models share their resamples, which are those of the table: a difference between two is paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tessera.reporting.comparison import Comparison, Gain
from tessera.reporting.ctr import MAIN, TESTED, ClickRun, ClickTable, Pairs
from tessera.reporting.runs import label
from tessera.reporting.tables import Column


@dataclass(frozen=True, kw_only=True)
class ClickComparison(Comparison[ClickRun]):
    """Pairs of models on a metric of all impressions."""

    table: ClickTable
    tested: Pairs

    AVERAGED: ClassVar[str] = "metrics are averaged over the seeds, in every resample too"
    DIGITS: ClassVar[int] = 4

    def gains(self, one: int, other: int) -> list[Gain]:
        """Differences of the main metric, and of the others that are tested; not relative, since 0.5 is chance."""
        gains = []
        first, second = self.ranked[one], self.ranked[other]
        mine_at, theirs_at = (self.tested.names.index(entry.name) for entry in (first, second))
        for metric in (self.metric, *(metric for metric in TESTED if metric != self.metric)):
            column = Column(metric)
            mine, theirs = self.table.cell(first, column), self.table.cell(second, column)
            if mine is None or theirs is None:
                continue
            ends = self.tested.intervals[metric][mine_at][theirs_at]
            interval = f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends is not None else "interval not known"
            lower = " (lower is better)" if self.table.metric(column).better == "smaller" else ""
            name = f"{metric[:1].upper()}{metric[1:]} over {label(second)}{lower}"
            number = f"{mine.mean - theirs.mean:+.4f}"
            gains.append(Gain("" if metric == self.metric else name, number, interval))
        return gains


def compare(table: ClickTable) -> ClickComparison | None:
    """Pairs of models on the main metric; None where no competitor has it."""
    tested = table.pairs
    if tested is None:
        return None
    ranked = [entry for entry in table.ranked(MAIN) if entry.name in tested.names]
    order = [tested.names.index(entry.name) for entry in ranked]
    cells = {entry.name: table.cell(entry, Column(MAIN)) for entry in table.entries}
    intervals = {name: (c.low, c.high) for name, c in cells.items() if c and c.low is not None and c.high is not None}
    return ClickComparison(
        metric=MAIN,
        ranked=ranked,
        intervals=intervals,
        means=np.array([table.mean(entry, MAIN) for entry in ranked]),
        users=table.judged.users,
        p=np.array(tested.p)[np.ix_(order, order)],
        least=tested.least,
        level=table.evaluation.level,
        outside=table.evaluation.level,
        table=table,
        tested=tested,
    )
