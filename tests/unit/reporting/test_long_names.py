"""Names that differ at their ends alone can be told apart in every plot."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import pytest
from reporting_world import ORDER, metric_files

from tessera.reporting import plots
from tessera.reporting.ranking import bare_table
from tessera.settings.evaluation import Evaluation, Significance

LONG = [f"captions_of_pictures_and_titles_{end}/sasrec" for end in ("one", "two")]
Drawing = Callable[[list[dict[str, Any]], alt.X, Sequence[str]], alt.TopLevelMixin]


def shown(svg: str) -> list[str]:
    """The texts that a plot shows."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def lines(rows: list[dict[str, Any]], x: alt.X, names: Sequence[str]) -> alt.TopLevelMixin:
    return plots.run_lines(rows, x, "NDCG@10", names)


def points(rows: list[dict[str, Any]], x: alt.X, names: Sequence[str]) -> alt.TopLevelMixin:
    return plots.run_points(rows, x, alt.Y("value:Q"), names)


@pytest.mark.parametrize("draw", [lines, points])
def test_legends_show_names_whole(draw: Drawing) -> None:
    rows = [{"run": name, "at": at, "value": at, "says": name} for name in LONG for at in (1.0, 2.0)]
    svg = plots.render(draw(rows, alt.X("at:Q"), LONG))
    assert {name for name in shown(svg) if name.endswith("sasrec")} == set(LONG)


def test_dots_show_names_whole(results: Path) -> None:
    table = bare_table("bazaar", metric_files(results), ORDER, Evaluation(), Significance(), (), {})
    table.entries = [replace(e, system=f"captions_of_pictures_and_titles_{e.system}") for e in table.entries[1:4]]
    table.average()
    drawn = plots.by_run(table, "NDCG@10", {}, 0.05)
    assert drawn is not None
    names = {entry.name for entry in table.entries}
    assert names <= set(shown(drawn.svg))


def test_names_without_end_are_cut() -> None:
    (drawn,) = [text for text in shown(plots.render(lines(
        [{"run": "x" * 250, "at": at, "value": at, "says": ""} for at in (1.0, 2.0)], alt.X("at:Q"), ["x" * 250]
    ))) if text.startswith("xx")]  # fmt: skip
    assert drawn.endswith("…")
