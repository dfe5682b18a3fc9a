"""Plots of click-through models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from tessera.reporting.ctr import ORACLE, Model, Table
from tessera.reporting.plots import SHAPES, Plot, colours, inline, place, render, run_lines, told


def all_plots(table: Table, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Plot]:
    """Everything that is drawn of a dataset.

    Args:
        curves: model -> rows of a history.jsonl: step, loss.
    """
    found = [
        by_model(table),
        by_group(table, "history", "history length", "events before the impression"),
        by_group(table, "popularity", "popularity", "the item's training events"),
        accuracy_and_time(table),
        calibration(table),
        training(table, curves),
    ]
    return [plot for plot in found if plot is not None]


def _bounds(values: Sequence[float]) -> alt.Scale:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.02
    return alt.Scale(domain=[low - room, high + room], zero=False)


def by_model(table: Table) -> Plot | None:
    """AUC of every model, with its interval."""
    rows: list[dict[str, Any]] = []
    for model in table.models:
        cell = model.cells.get(("", "", "AUC"))
        if cell is not None:
            low, high = cell.low or cell.mean, cell.high or cell.mean
            says = f"{model.name}: AUC {cell.mean:.4f}, {low:.4f} to {high:.4f}"
            kind = ORACLE if model.name == ORACLE else "model"
            rows.append({"run": model.name, "value": cell.mean, "low": low, "high": high, "kind": kind, "says": says})
    if not rows:
        return None
    names = [row["run"] for row in rows]
    scale = _bounds([row[key] for row in rows for key in ("low", "high")])
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("run:N", sort=names, title=None, axis=alt.Axis(minExtent=min(200, 8 * max(map(len, names))))),
        description="says:N",
    )
    colour = alt.Color("kind:N", scale=colours(["model", ORACLE], [ORACLE]), title=None, legend=None)
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("value:Q", title="AUC", scale=scale), color=colour
    )
    whiskers = base.mark_rule(color="var(--ink)", strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    chart = (whiskers + points).properties(width=460, height=alt.Step(26))
    return Plot("ctr-auc", "AUC by model, with intervals", told(rows), render(chart))


def by_group(table: Table, kind: str, name: str, axis: str) -> Plot | None:
    """AUC over the groups of one kind, a line a model."""
    rows: list[dict[str, Any]] = []
    for model in table.models:
        for (of, group, metric), cell in model.cells.items():
            if of == kind and metric == "AUC":
                says = f"{model.name}, {group}: AUC {cell.mean:.4f} ({cell.samples or 0:,} impressions)"
                rows.append({"run": model.name, "group": group, "value": cell.mean, "says": says})
    groups = sorted({row["group"] for row in rows}, key=place)
    if len(groups) < 2:
        return None
    x = alt.X("group:N", sort=groups, title=axis, axis=alt.Axis(labelAngle=0))
    chart = run_lines(rows, x, "AUC", _names(table), zero=False)
    return Plot(f"ctr-by-{kind}", f"AUC by {name}", told(rows), render(chart))


def accuracy_and_time(table: Table) -> Plot | None:
    """AUC against the median time of a request."""
    rows: list[dict[str, Any]] = []
    for model in table.models:
        auc, time = model.cells.get(("", "", "AUC")), model.cells.get(("cost", "", "p50_ms"))
        if auc is not None and time is not None:
            says = f"{model.name}: AUC {auc.mean:.4f}, {time.mean:.2f} ms"
            rows.append({"run": model.name, "x": time.mean, "y": auc.mean, "says": says})
    if len(rows) < 2:
        return None
    names = [row["run"] for row in rows]
    shapes = alt.Scale(domain=names, range=[SHAPES[number % len(SHAPES)] for number in range(len(names))])
    legend = alt.Legend(orient="bottom", columns=3)
    times = alt.Scale(type="log", nice=False, domain=_around([row["x"] for row in rows]))
    chart = (
        alt.Chart(inline(rows))
        .mark_point(size=110, filled=True, opacity=1)
        .encode(
            x=alt.X("x:Q", title="milliseconds of a request (median, log)", scale=times),
            y=alt.Y("y:Q", title="AUC", scale=_bounds([row["y"] for row in rows])),
            color=alt.Color("run:N", scale=colours(names), title=None, legend=legend),
            shape=alt.Shape("run:N", scale=shapes, title=None, legend=legend),
            description="says:N",
        )
        .properties(width=460, height=250)
    )
    return Plot("ctr-time", "AUC against the time of a request", told(rows), render(chart))


def _around(values: Sequence[float]) -> list[float]:
    return [0.8 * min(values), 1.25 * max(values)]


def calibration(table: Table) -> Plot | None:
    """Share of clicks against the mean prediction, a line a model, of its first seed."""
    rows: list[dict[str, Any]] = []
    for model in table.models:
        for predicted, clicked, count in model.runs[0]["calibration"]:
            says = f"{model.name}: predicted {predicted:.3f}, clicked {clicked:.3f} ({count:,} impressions)"
            rows.append({"run": model.name, "x": predicted, "value": clicked, "says": says})
    if not rows:
        return None
    x = alt.X("x:Q", title="predicted probability", scale=alt.Scale(domain=[0, 1]))
    chart = run_lines(rows, x, "share of clicks", _names(table))
    worst = max(table.models, key=_calibration_error)
    says = f"the largest calibration error is that of {worst.name}, {_calibration_error(worst):.4f}"
    return Plot("ctr-calibration", "Calibration", says, render(chart))


def _calibration_error(model: Model) -> float:
    cell = model.cells.get(("", "", "ECE"))
    return cell.mean if cell is not None else 0.0


def training(table: Table, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    """Training loss over steps, a line a model, smoothed to forty points."""
    rows: list[dict[str, Any]] = []
    for name, history in curves.items():
        size = max(1, -(-len(history) // 40))
        for start in range(0, len(history), size):
            part = history[start : start + size]
            loss = sum(row["cross-entropy"] for row in part) / len(part)
            step = part[-1]["step"]
            says = f"{name}, step {step:,}: cross-entropy {loss:.4f}"
            rows.append({"run": name, "step": step, "value": loss, "says": says})
    if len({row["step"] for row in rows}) < 2:
        return None
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6, format="~s"), scale=alt.Scale(nice=False))
    chart = run_lines(rows, x, "cross-entropy", _names(table), zero=False)
    ends = {row["run"]: f"{row['run']} ends at {row['value']:.4f}" for row in rows}
    return Plot("ctr-training", "Training: cross-entropy", "; ".join(ends.values()), render(chart))


def _names(table: Table) -> list[str]:
    return [model.name for model in table.models]
