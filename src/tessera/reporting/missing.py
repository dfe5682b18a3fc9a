"""What happens when pictures or texts are missing: the main metric over the share of items that lost them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import altair as alt

from tessera.reporting.plots import Plot, render, run_lines
from tessera.reporting.ranking import RankingTable

_WHEN = {"both": "", "training": " in training", "test": " at test"}


def missing_lines(systems: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """The systems of a config that differ in `missing` alone, as lines of (share, system) by rising share.

    A line is a system without losses, or the first of those that lose something, and those that lose the same kind of
    thing at the same time; one that loses both pictures and texts is on a line where the shares are equal.
    """
    alike: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, system in systems.items():
        if not isinstance(system, Mapping):
            continue
        # where and how often a system runs makes no other system of it
        rest = {key: value for key, value in system.items() if key not in ("missing", "backbones", "seeds")}
        alike.setdefault(json.dumps(rest, sort_keys=True), []).append((name, system.get("missing") or {}))
    drawn: dict[str, list[tuple[float, str]]] = {}
    for members in alike.values():
        whole = next((name for name, missing in members if not _lost(missing)[1]), None)
        base = whole or members[0][0]
        lines: dict[str, list[tuple[float, str]]] = {}
        for name, missing in members:
            what, share = _lost(missing)
            if what and share:
                when = _WHEN.get(str(missing.get("when", "both")), "")
                seed = f", items {missing['seed']}" if missing.get("seed") else ""
                lines.setdefault(f"{base} without {what}{when}{seed}", []).append((share, name))
        for title, points in lines.items():
            drawn[title] = sorted([*([(0.0, whole)] if whole else []), *points])
    return {title: points for title, points in drawn.items() if len(points) > 1}


def _lost(missing: Mapping[str, Any]) -> tuple[str, float]:
    """What is lost, and which share; no name where the shares of both differ."""
    image, text = float(missing.get("image", 0.0)), float(missing.get("text", 0.0))
    if image and text:
        return ("pictures and texts", image) if image == text else ("", image)
    return ("texts", text) if text else ("pictures", image)


def by_missing(table: RankingTable, metric: str, systems: Mapping[str, Any]) -> Plot | None:
    """Lines of the main metric over the share of items that lost something; None where no systems differ so.

    The points of a line are means over the seeds that all of them ran under: others would add the noise of their own.
    """
    entries = {(entry.system, entry.recommender): entry for entry in table.entries}
    rows: list[dict[str, Any]] = []
    for title, points in missing_lines(systems).items():
        for recommender in dict.fromkeys(entry.recommender for entry in table.entries):
            shown = [(share, entries[name, recommender]) for share, name in points if (name, recommender) in entries]
            if len(shown) < 2:
                continue
            common = set.intersection(*({run.seed for run in entry.runs} for _, entry in shown))
            if not common:
                continue
            line = f"{title}, {recommender}"
            seeds = f"seed{'s' * (len(common) > 1)} {', '.join(map(str, sorted(common)))}"
            for share, entry in shown:
                runs = tuple(run for run in entry.runs if run.seed in common)
                value = float(replace(entry, runs=runs).values(metric).mean())
                says = f"{line}: {share:.0%} lost, {metric} {value:.4f} ({seeds})"
                rows.append({"run": line, "share": share, "value": value, "says": says})
    if not rows:
        return None
    x = alt.X("share:Q", title="share of the items that lost it", axis=alt.Axis(format="%"))
    chart = run_lines(rows, x, metric, list(dict.fromkeys(row["run"] for row in rows)))
    described = "; ".join(str(row["says"]) for row in rows)
    return Plot("by-missing", f"{metric} when pictures or texts are missing", described, render(chart))
