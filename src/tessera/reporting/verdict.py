"""The answer that a page opens with: the best system, its gain over the baseline, and what it cannot be told from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tessera.reporting.comparison import Comparison
from tessera.reporting.run_costs import RunCost, run_cost
from tessera.reporting.runs import Entry, Run, label, opponent
from tessera.reporting.tables import Column, Table

R = TypeVar("R", bound=Run)


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


def verdict(table: Table[R], main: str, compared: Comparison[R] | None, costs: Mapping[str, RunCost]) -> Verdict | None:
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
    base = opponent(best, table.baselines)
    facts = [(table.header(Column(main)), number, _interval_of_mean(table, best, compared))]
    summary = f"{table.dataset}: {label(best)} has the best {main}, {number}"
    headline = f"{label(best)} is the best {table.COMPETES}."
    if table.is_baseline(best):
        headline = f"No {table.COMPETES} is better than the baseline, {label(best)}."
        summary = f"{table.dataset}: no {table.COMPETES} is better than the baseline {label(best)}, {main} {number}"
    elif base is not None and compared is not None:
        one, other = compared.place(best), compared.place(base)
        assert one is not None, "the best is a competitor"
        gains = compared.gains(one, other) if other is not None else []
        if other is not None and gains:
            chance = compared.told_p(one, other)
            first, *more = gains
            facts.append((f"Over {label(base)}", first.number, f"{first.interval}, {chance}"))
            facts += more
            summary += f", {first.number} over {label(base)} ({chance})"
        if other is not None and not compared.better(one, other):
            headline = f"{label(best)} has the best {main}, but is not told apart from the baseline."
    if costs[best.name].text:
        facts.append(("Training of a seed", *_first_and_rest(costs[best.name].text)))
    return Verdict(headline, facts, _sentences(table, main, best, compared), _method(table, compared), f"{summary}.")


def _method(table: Table[R], compared: Comparison[R] | None) -> str:
    if compared is None:
        return ""
    averaged = any(len(entry.runs) > 1 for entry in table.entries)
    family = f"{compared.pairs:,} pairs of {table.COMPETES}s"
    parts = [
        f"{100 * (1 - compared.outside):g} % intervals: bootstrap over {compared.users:,} test users"
        if compared.intervals
        else f"{compared.users:,} test users: too few for intervals",
        f"p: paired over users, Holm's correction over {family}" if compared.pairs else "",
        compared.AVERAGED if averaged else "",
    ]
    return "; ".join(filter(None, parts))


def _first_and_rest(text: str) -> tuple[str, str]:
    first, _, rest = text.partition(", ")
    return first, rest


def _interval_of_mean(table: Table[R], entry: Entry[R], compared: Comparison[R] | None) -> str:
    ends = compared.intervals.get(entry.name) if compared is not None else None
    if compared is None or ends is None:
        return ""
    low, high = (table.text(Column(compared.metric), value) for value in ends)
    return f"{low} to {high}"


def _sentences(table: Table[R], main: str, best: Entry[R], compared: Comparison[R] | None) -> list[str]:
    sentences = []
    if compared is not None and compared.pairs:
        one = compared.place(best)
        alike = [
            label(entry)
            for place, entry in enumerate(compared.ranked)
            if entry is not best and one is not None and not compared.better(one, place)
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


def costs_of(table: Table[R], results: Path) -> dict[str, RunCost]:
    """Name of a row -> the cost of its training."""
    return {
        entry.name: run_cost(results / "benchmarks" / table.TRAINED_BY, table.dataset, entry) for entry in table.entries
    }
