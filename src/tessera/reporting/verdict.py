"""The answer that a page opens with: the best system, its gain over the baseline, and what it cannot be told from.

Everything is over the users of the main metric, each averaged over the seeds of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera.evaluation.significance import (
    bootstrap_interval,
    bootstrap_ratio_interval,
    least_p,
    pairwise,
    told_p,
)
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun, check_same_users, user_metrics
from tessera.reporting.run_costs import RunCost, run_cost
from tessera.reporting.runs import Array, Entry, label, opponent
from tessera.reporting.tables import Column

INTERVAL = 0.05
"""The share of resamples outside an interval."""
Row = Entry[RankingRun]


@dataclass(frozen=True)
class Comparison:
    """Every row on the main metric, and every pair of systems."""

    metric: str
    ranked: list[Row]
    """Competitors from best to worst."""
    intervals: dict[str, tuple[float, float]]
    """Name of a row, a bound's too -> interval of its mean over users."""
    values: Array
    """(users, ranked)"""
    head: NDArray[np.bool_]
    """(users,) whether the target belongs to the head."""
    p: Array
    """(ranked, ranked), corrected over all pairs; ones where there are too few users for a test."""
    least: float
    """The least of them that the resamples can tell."""
    level: float

    @property
    def pairs(self) -> int:
        """How many pairs were tested."""
        return len(self.ranked) * (len(self.ranked) - 1) // 2

    def difference(self, one: int, other: int) -> float:
        """The mean of one system minus that of another, by their places in `ranked`."""
        return float((self.values[:, one] - self.values[:, other]).mean())

    def better(self, one: int, other: int) -> bool:
        """Whether one system is better than another by more than chance over users."""
        return bool(self.p[one, other] <= self.level) and self.difference(one, other) > 0

    def told_p(self, one: int, other: int) -> str:
        """The corrected p of a pair as it is printed."""
        return told_p(float(self.p[one, other]), self.least).replace(" ", "\u00a0")

    def beaten(self, one: int) -> int:
        """How many systems a system is better than."""
        return sum(self.better(one, other) for other in range(len(self.ranked)))

    def lost(self, one: int) -> int:
        """How many systems are better than a system."""
        return sum(self.better(other, one) for other in range(len(self.ranked)))


def compare(table: RankingTable, metric: str) -> Comparison | None:
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
    p = pairwise(values, settings) if tested else np.ones((systems, systems))
    least = least_p(settings, pairs, users) if tested else 0.0
    return Comparison(metric, ranked, _intervals(columns, table), values, head, p, least, settings.level)


def _intervals(columns: dict[str, Array], table: RankingTable) -> dict[str, tuple[float, float]]:
    """Name of a row -> the interval of its mean; rows of as many users share their resamples."""
    intervals: dict[str, tuple[float, float]] = {}
    for users in {len(values) for values in columns.values()}:
        names = [name for name, values in columns.items() if len(values) == users]
        stacked = np.stack([columns[name] for name in names], axis=1)
        settings = table.significance
        low, high = bootstrap_interval(stacked, INTERVAL, settings.resamples, settings.seed)
        intervals |= {name: (float(low[n]), float(high[n])) for n, name in enumerate(names)}
    return intervals


@dataclass(frozen=True)
class Verdict:
    """What the card says."""

    headline: str
    facts: list[tuple[str, str, str]]
    """Name, number, and what stands small beneath it."""
    sentences: list[str]
    method: str
    """How intervals and p were made."""
    summary: str
    """All of it in one sentence, for previews of links."""


def verdict(table: RankingTable, main: str, compared: Comparison | None, costs: dict[str, RunCost]) -> Verdict | None:
    """The verdict on one dataset; None where all rows are bounds.

    Args:
        main: the metric that decides.
        costs: name of a row -> the cost of its training.
    """
    if not table.competitors:
        return None
    best = table.ranked(main)[0]
    cell = table.cell(best, Column(main))
    if cell is None:
        return None
    number = table.text(Column(main), cell.mean)
    interval = _interval_of_mean(table, best, compared)
    base = opponent(best, table.baselines)
    facts = [(table.header(Column(main)), number, interval)]
    summary = f"{table.dataset}: {label(best)} has the best {main}, {number}"
    headline = f"{label(best)} is the best system."
    if table.is_baseline(best):
        headline = f"No system is better than the baseline, {label(best)}."
        summary = f"{table.dataset}: no system is better than the baseline {label(best)}, {main} {number}"
    elif base is not None and compared is not None:
        gains, chance = _gains(table, compared, best, base)
        facts += gains
        won = compared.better(_place(compared, best), _place(compared, base))
        if not won:
            headline = f"{label(best)} has the best {main}, but is not told apart from the baseline."
        summary += f", {gains[0][1]} over {label(base)} ({chance})" if gains else ""
    if costs[best.name].text:
        facts.append(("Training of a seed", *_first_and_rest(costs[best.name].text)))
    return Verdict(headline, facts, _sentences(table, main, best, compared), _method(table, compared), f"{summary}.")


def _method(table: RankingTable, compared: Comparison | None) -> str:
    if compared is None:
        return ""
    averaged = any(len(entry.runs) > 1 for entry in table.entries)
    parts = [
        f"95 % intervals: bootstrap over {len(compared.values):,} test users",
        f"p: paired over users, Holm's correction over {compared.pairs:,} pairs of systems" if compared.pairs else "",
        "a user's values are averaged over the seeds" if averaged else "",
    ]
    return "; ".join(filter(None, parts))


def _place(compared: Comparison, entry: Row) -> int:
    return next(place for place, other in enumerate(compared.ranked) if other.name == entry.name)


def _first_and_rest(text: str) -> tuple[str, str]:
    first, _, rest = text.partition(", ")
    return first, rest


def _interval_of_mean(table: RankingTable, entry: Row, compared: Comparison | None) -> str:
    if compared is None:
        return ""
    low, high = (table.text(Column(compared.metric), value) for value in compared.intervals[entry.name])
    return f"{low} to {high}"


def _gains(table: RankingTable, compared: Comparison, best: Row, base: Row) -> tuple[list[tuple[str, str, str]], str]:
    """Relative gains over the baseline: of all users, with its p, and of head and tail."""
    one = _place(compared, best)
    if base.name not in {entry.name for entry in compared.ranked}:
        return [], ""
    other = _place(compared, base)
    chance = compared.told_p(one, other)
    everyone = np.ones(len(compared.values), bool)
    groups = [
        (f"Over {label(base)}", everyone, f", {chance}"),
        ("Head", compared.head, ""),
        ("Tail", ~compared.head, ""),
    ]
    gains = []
    for name, members, more in groups:
        first, second = compared.values[members, one], compared.values[members, other]
        if not len(first) or second.mean() <= 0:
            continue
        settings = table.significance
        ends = bootstrap_ratio_interval(first, second, INTERVAL, settings.resamples, settings.seed)
        interval = f"{ends[0]:+.1%} to {ends[1]:+.1%}" if ends is not None else "interval not known"
        gains.append((name, f"{first.mean() / second.mean() - 1:+.1%}", f"{interval}{more}"))
    return gains, chance


def _sentences(table: RankingTable, main: str, best: Row, compared: Comparison | None) -> list[str]:
    sentences = []
    if compared is not None and compared.pairs:
        one = _place(compared, best)
        alike = [
            label(entry)
            for place, entry in enumerate(compared.ranked)
            if entry is not best and not compared.better(one, place)
        ]
        standing = f"cannot be told apart from {_listed(alike)}" if alike else "is better than all others"
        sentences.append(f"{label(best)} {standing}.")
    bounds = [
        f"{label(entry)} ({table.text(Column(main), table.mean(entry, main))})"
        for entry in table.entries
        if table.is_bound(entry) and table.cell(entry, Column(main)) is not None
    ]
    if bounds:
        sentences.append(f"Bounds that know the hidden truth, and do not compete: {_listed(bounds)}.")
    return sentences


def _listed(names: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def costs_of(table: RankingTable, results: Path) -> dict[str, RunCost]:
    """Name of a row -> the cost of its training."""
    return {entry.name: run_cost(results, table.dataset, entry) for entry in table.entries}
