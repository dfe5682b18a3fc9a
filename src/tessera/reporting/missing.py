"""What happens when pictures or texts are missing: the main metric over the share of items that lost them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import altair as alt

from tessera.reporting.plots import Plot, render, run_lines
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun
from tessera.reporting.runs import Entry
from tessera.settings.missing import Missing, percent

_WHEN = {"both": "", "training": " in training", "test": " at test"}

Point = tuple[float, Entry[RankingRun]]
"""The share that is lost, and who lost it."""


def missing_lines(entries: Iterable[Entry[RankingRun]]) -> dict[str, list[Point]]:
    """Entries whose runs were recorded to differ in their losses alone, as lines of points by rising share.

    A line is a system without losses, or the first of those that lose something, and those that lose the same kind of
    thing at the same time under one pattern; one that loses both pictures and texts is on a line where the shares are
    equal.
    """
    alike: dict[str, list[tuple[Missing, Entry[RankingRun]]]] = {}
    for entry in entries:
        kinds = {(run.apart_from_losses, run.missing or Missing()) for run in entry.runs}
        if len(kinds) == 1:  # seeds of several settings are no point
            (key, missing) = kinds.pop()
            if key:
                alike.setdefault(key, []).append((missing, entry))
    drawn: dict[str, list[Point]] = {}
    for members in alike.values():
        whole = next((entry for missing, entry in members if not _lost(missing)[1]), None)
        base = whole or members[0][1]
        lines: dict[str, list[Point]] = {}
        for missing, entry in members:
            what, share = _lost(missing)
            if what and share:
                seed = f", items {missing.seed}" if missing.seed else ""
                title = (
                    f"{base.system} without {what}{_WHEN[missing.when]}{seed}, {missing.pattern}, {entry.recommender}"
                )
                lines.setdefault(title, []).append((share, entry))
        for title, points in lines.items():
            drawn[title] = [*([(0.0, whole)] if whole else []), *sorted(points, key=lambda p: (p[0], p[1].name))]
    return {title: points for title, points in drawn.items() if len(points) > 1}


def _lost(missing: Missing) -> tuple[str, float]:
    """What is lost, and which share; no name where the shares of both differ."""
    image, text = missing.image, missing.text
    if image and missing.pattern == "one_modality":
        return "a picture or a text", image
    if image and text:
        return ("pictures and texts", image) if image == text else ("", image)
    return ("texts", text) if text else ("pictures", image)


def by_missing(table: RankingTable, metric: str) -> Plot | None:
    """Lines of the main metric over the share of items that lost something; None where no systems differ so.

    The points of a line are means over the seeds that all of them ran under: others would add the noise of their own.
    """
    rows: list[dict[str, Any]] = []
    for line, points in missing_lines(table.entries).items():
        common = set.intersection(*({run.seed for run in entry.runs} for _, entry in points))
        if not common:
            continue
        seeds = f"seed{'s' * (len(common) > 1)} {', '.join(map(str, sorted(common)))}"
        for share, entry in points:
            runs = tuple(run for run in entry.runs if run.seed in common)
            value = float(replace(entry, runs=runs).values(metric).mean())
            says = f"{line}: {percent(share)} lost, {metric} {value:.4f} ({seeds})"
            rows.append({"run": line, "share": share, "value": value, "says": says})
    if not rows:
        return None
    x = alt.X("share:Q", title="share of the items that lost it", axis=alt.Axis(format="%"))
    chart = run_lines(rows, x, metric, list(dict.fromkeys(row["run"] for row in rows)))
    described = "; ".join(str(row["says"]) for row in rows)
    return Plot("by-missing", f"{metric} when pictures or texts are missing", described, render(chart))
