"""Plots of click-through models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from tessera.reporting.ctr import ClickTable
from tessera.reporting.plots import Plot, around, by_group, by_run, chosen, described, render, run_lines, run_points
from tessera.reporting.tables import Column


def all_plots(table: ClickTable, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Plot]:
    """Everything that is drawn of a dataset.

    Args:
        curves: model -> rows of a history.jsonl: step, loss.
    """
    plots = [
        by_run(table, "AUC", {}, table.evaluation.level, "ctr-auc"),
        _by_group(table, "history", "history length", "events before the impression", "ctr-by-history"),
        _by_group(table, "popularity", "popularity", "the item's training events", "ctr-by-popularity"),
        accuracy_and_time(table),
        calibration(table),
        training(table, curves),
        bank(table, curves),
    ]
    return [plot for plot in plots if plot is not None]


def _by_group(table: ClickTable, kind: str, name: str, axis: str, file: str) -> Plot | None:
    """Lines of AUC over groups; an AUC of several groups is no mean of theirs, so none are put together."""
    return by_group(table, "AUC", kind, name, axis, file, zero=False, averaged=False)


def accuracy_and_time(table: ClickTable) -> Plot | None:
    """AUC against the median time of a request."""
    rows: list[dict[str, Any]] = []
    for entry in table.entries:
        auc, time = table.cell(entry, Column("AUC")), table.cell(entry, Column("p50_ms", "cost"))
        if auc is not None and time is not None:
            says = f"{entry.name}: AUC {auc.mean:.4f}, {time.mean:.2f} ms"
            rows.append({"run": entry.name, "x": time.mean, "y": auc.mean, "says": says})
    if len(rows) < 2:
        return None
    times = alt.Scale(type="log", nice=False, domain=_around([row["x"] for row in rows]))
    x = alt.X("x:Q", title="milliseconds of a request (median, log)", scale=times)
    y = alt.Y("y:Q", title="AUC", scale=around([row["y"] for row in rows]))
    chart = run_points(rows, x, y, [row["run"] for row in rows])
    return Plot("ctr-time", "AUC against the time of a request", described(rows), render(chart))


def _around(values: Sequence[float]) -> list[float]:
    return [0.8 * min(values), 1.25 * max(values)]


def calibration(table: ClickTable) -> Plot | None:
    """Share of clicks against the mean prediction, a line a model, of its first seed."""
    shown = chosen(table, "AUC")
    rows: list[dict[str, Any]] = []
    for entry in shown:
        for predicted, clicked, count in entry.runs[0].calibration:
            says = f"{entry.name}: predicted {predicted:.3f}, clicked {clicked:.3f} ({count:,} impressions)"
            rows.append({"run": entry.name, "x": predicted, "value": clicked, "says": says})
    if not rows:
        return None
    x = alt.X("x:Q", title="predicted probability", scale=alt.Scale(domain=[0, 1]))
    chart = run_lines(rows, x, "share of clicks", [entry.name for entry in shown])
    # a mean over seeds, or a model that is not among the chosen ones, would be seen in no line
    errors = {entry: entry.runs[0].metrics.get("ECE") or 0.0 for entry in shown if entry.runs[0].calibration}
    worst = max(errors, key=errors.__getitem__)
    says = f"the largest calibration error of the lines is that of {worst.name}, {errors[worst]:.4f}"
    return Plot("ctr-calibration", f"Calibration{_whose(table)}", says, render(chart))


def training(table: ClickTable, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    """Training loss over steps, a line a model, of its first seed."""
    drawn = _over_steps(table, curves, "cross-entropy", "cross-entropy")
    if drawn is None:
        return None
    rows, chart = drawn
    ends = {row["run"]: f"{row['run']} ends at {row['value']:.4f} ({row['steps']})" for row in rows}
    title = f"Training: cross-entropy{_whose(table)}"
    return Plot("ctr-training", title, "; ".join(ends.values()), render(chart))


def bank(table: ClickTable, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    """How near vectors of a memory bank are to those that replace them, over steps, a line a model's first seed."""
    drawn = _over_steps(table, curves, "bank_cosine", "cosine")
    if drawn is None:
        return None
    rows, chart = drawn
    ends = {row["run"]: f"{row['run']} ends at {row['value']:.3f} ({row['steps']})" for row in rows}
    covered = {name: [row["bank_coverage"] for row in curves[name] if "bank_coverage" in row] for name in ends}
    says = [f"{end}, with {covered[name][-1]:.0%} of events in the bank" for name, end in ends.items()]
    title = f"Memory bank: cosine of what it holds and what replaces it{_whose(table)}"
    return Plot("ctr-bank", title, "; ".join(says), render(chart))


def _whose(table: ClickTable) -> str:
    """What a title says where lines are of one seed of several."""
    return " (first seeds)" if any(len(entry.runs) > 1 for entry in table.entries) else ""


def _over_steps(
    table: ClickTable, curves: Mapping[str, Sequence[Mapping[str, Any]]], column: str, title: str
) -> tuple[list[dict[str, Any]], Any] | None:
    """A column of the curves that have it, as forty means over steps, and its lines; None with fewer than two steps."""
    rows: list[dict[str, Any]] = []
    names = []
    for name in (entry.name for entry in chosen(table, "AUC")):
        history = [row for row in curves.get(name, ()) if column in row]
        names += [name] * bool(history)
        size = max(1, -(-len(history) // 40))
        before = 0
        for start in range(0, len(history), size):
            part = history[start : start + size]
            value = sum(row[column] for row in part) / len(part)
            step = part[-1]["step"]
            steps = f"steps {before + 1:,} to {step:,}" if step > before + 1 else f"step {step:,}"
            before = step
            says = f"{name}, {steps}: {title} {value:.4f}"
            rows.append({"run": name, "step": step, "value": value, "steps": steps, "says": says})
    if len({row["step"] for row in rows}) < 2:
        return None
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6, format="~s"), scale=alt.Scale(nice=False))
    return rows, run_lines(rows, x, title, names, zero=False)
