"""What the page says of a search: trials, budget, what was chosen, and the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt

from tessera.artifacts.files import read_json
from tessera.reporting.plots import Plot, chosen, render, run_lines
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun
from tessera.reporting.runs import Entry, label

HEADS = ("run", "trials", "failed", "validation NDCG@10", "seconds", "chosen")


@dataclass(frozen=True)
class SearchSection:
    """The searches of a dataset."""

    rows: list[list[str]]
    """Under `HEADS`."""
    plot: Plot | None
    """The best so far."""


def search_section(table: RankingTable, main: str) -> SearchSection | None:
    """The searches behind a table; None where nothing was searched.

    Args:
        main: the metric by which rows are chosen for plots.
    """
    searches = {entry.name: read_json(path) for entry in table.entries if (path := _file(entry)).is_file()}
    searched = [entry for entry in table.entries if entry.name in searches and _was_searched(entry)]
    if not searched:
        return None
    rows = [_row(label(entry), searches[entry.name]) for entry in searched]
    return SearchSection(rows, _best_so_far(table, main, {one.name: searches[one.name]["curve"] for one in searched}))


def _file(entry: Entry[RankingRun]) -> Path:
    """What the search of a row came to; it lies beside the folder of runs."""
    folder = entry.runs[0].path.parents[4]
    return folder / "trials" / entry.system / entry.recommender / "search.json"


def _was_searched(entry: Entry[RankingRun]) -> bool:
    """Whether the runs of a row were trained with what was chosen, and not before there was a search."""
    return bool(read_json(entry.runs[0].path.with_name("model.json"))["run"].get("chosen"))


def _row(name: str, search: Mapping[str, Any]) -> list[str]:
    trials = search["trials"]
    best = trials[search["best"]]
    values = ", ".join(f"{path}: {value}" for path, value in best["values"].items())
    failed = sum(trial["validation"] is None for trial in trials)
    seconds = sum(trial["seconds"] for trial in trials)
    return [name, f"{len(trials):,}", f"{failed:,}", f"{best['validation']:.4f}", f"{seconds:,.0f}", values]


def _best_so_far(table: RankingTable, main: str, curves: Mapping[str, Sequence[float | None]]) -> Plot | None:
    """The best validation after each trial, a line a run."""
    entries = chosen(table, main)
    rows: list[dict[str, Any]] = [
        {"run": label(entry), "trial": trial, "value": value,
         "says": f"{label(entry)}: best of {trial} trials {value:.4f}"}
        for entry in entries
        for trial, value in enumerate(curves.get(entry.name, ()), 1)
        if value is not None
    ]  # fmt: skip
    most = max((row["trial"] for row in rows), default=0)
    if most < 2:
        return None
    axis = alt.Axis(values=list(range(1, most + 1, -(-most // 8))), format="d")
    x = alt.X("trial:Q", title="trials", axis=axis, scale=alt.Scale(domain=[1, most], nice=False))
    ends = {row["run"]: row["says"] for row in rows}
    chart = run_lines(rows, x, "best validation NDCG@10", [label(entry) for entry in entries], zero=False)
    return Plot("best-so-far", f"Best of {most} trials", "; ".join(map(str, ends.values())), render(chart))
