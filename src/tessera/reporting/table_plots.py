"""Plots of item tables: how their vectors lie, and how their embedders were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from tessera.reporting.plots import Plot, described, group_order, render, run_lines, run_points

Step = tuple[int, Mapping[str, Any]]
"""A step of an embedder's training over all its phases, and what was measured there."""

CURVES = ("loss", "accuracy", "reward")
"""Numbers of an embedder's training that are drawn, where it has them."""


def spread(tables: Mapping[str, Mapping[str, Any]]) -> Plot | None:
    """Alignment against uniformity, a point a table (Wang and Isola, ICML 2020, figure 5)."""
    rows = [
        {
            "run": name,
            "x": table["uniformity"],
            "y": table["alignment"],
            "says": f"{name}: uniformity {table['uniformity']:.3f}, alignment {table['alignment']:.3f}",
        }
        for name, table in tables.items()
        if table.get("uniformity") is not None and table.get("alignment") is not None
    ]
    if len(rows) < 2:
        return None
    axis = alt.Axis(tickCount=6, labelFlush=False)
    x = alt.X("x:Q", title="uniformity (lower: more even)", scale=_around(rows, "x"), axis=axis)
    y = alt.Y("y:Q", title="alignment (lower: nearer)", scale=_around(rows, "y"), axis=axis)
    chart = run_points(rows, x, y, list(tables))
    return Plot("table-spread", "Item tables: alignment and uniformity", described(rows), render(chart))


def _around(rows: Sequence[Mapping[str, Any]], key: str) -> alt.Scale:
    """A scale with some room around the points."""
    low, high = min(row[key] for row in rows), max(row[key] for row in rows)
    room = 0.1 * (high - low) or 0.1
    return alt.Scale(domain=[low - room, high + room], nice=True, zero=False)


def by_bin(tables: Mapping[str, Mapping[str, Any]], key: str, name: str, file: str) -> Plot | None:
    """Lines over popularity bins, a line a table.

    Args:
        tables: table -> its diagnostics.
        key: what is drawn of each bin.
    """
    rows: list[dict[str, Any]] = []
    for table, diagnostics in tables.items():
        for part in diagnostics.get("popularity", []):
            if part[key] is not None:
                says = f"{table}, bin {part['bin']} ({part['items']:,} items): {name} {part[key]:.3f}"
                rows.append({"run": table, "group": part["bin"], "value": part[key], "says": says})
    groups = sorted({row["group"] for row in rows}, key=group_order)
    if len(groups) < 2:
        return None
    x = alt.X("group:N", sort=groups, title="bin of train popularity, 1 = most", axis=alt.Axis(labelAngle=0))
    chart = run_lines(rows, x, name, list(tables))
    return Plot(file, f"Item tables: {name} by popularity", described(rows), render(chart))


def embedder_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Plot]:
    """Training curves over steps, a plot a number and a line an embedder.

    Args:
        curves: table -> rows of its embedder's history.jsonl: step, loss, other numbers.
    """
    plots = []
    for key in CURVES:
        rows = [
            {
                "run": name,
                "step": step,
                "value": row[key],
                "says": f"{name}, step {step:,}: {key} {row[key]:.4f}",
            }
            for name, history in curves.items()
            for step, row in _thinned([(step, row) for step, row in _onward(history) if row.get(key) is not None])
        ]
        if len({row["step"] for row in rows}) < 2:
            continue
        x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6, format="~s"), scale=alt.Scale(nice=False))
        chart = run_lines(rows, x, key, list(curves), zero=False)
        ends = {row["run"]: f"{row['run']} ends at {row['value']:.4f}" for row in rows}
        plots.append(Plot(f"embedders-{key}", f"Training of embedders: {key}", "; ".join(ends.values()), render(chart)))
    return plots


def _onward(history: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    """Rows with their steps; phases count them from one, and a line goes on where the one before it ended."""
    before, last, phase = 0, 0, None
    for row in history:
        if row.get("phase") != phase or row["step"] <= last:
            before, phase = before + last, row.get("phase")
        last = row["step"]
        yield before + last, row


def _thinned(rows: list[Step], most: int = 60) -> list[Step]:
    """At most so many rows, evenly spaced, the last one kept: more points would only thicken the line."""
    step = -(-len(rows) // most)
    return rows[::-1][::step][::-1] if step else rows
