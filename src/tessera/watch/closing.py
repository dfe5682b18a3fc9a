"""The last lines of a run: the best system, its table, the report, the logs, the time."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tessera.artifacts.logs import duration
from tessera.plan.jobs import Jobs
from tessera.plan.truth import knows_the_truth
from tessera.settings.config import Config


def best(table: Path, metric: str, without: set[str]) -> tuple[str, float] | None:
    """The system with the best mean of a metric in a table (CSV), and the mean; None where the table has none."""
    with suppress(OSError, csv.Error), table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        # among drawn candidates the header says so behind the metric's name
        column = next((name for name in reader.fieldnames or () if name.partition(" (")[0] == metric), metric)
        rows = [(row.get("system") or row["model"], row) for row in reader]
        means = [
            ("/".join(dict.fromkeys(filter(None, [name, row.get("recommender")]))), float(row[column]))
            for name, row in rows
            if name not in without and row.get(column)
        ]
        return max(means, key=lambda mean: mean[1]) if means else None
    return None


def main_metric(config: Config) -> str:
    """What decides which system is the best."""
    return "AUC" if config.task == "ctr" else config.report.main_metric


def closing_lines(jobs: Jobs, logs: Iterable[str], seconds: float, whole: bool = True) -> list[str]:
    """Best system, table, report, logs, time: a line each, the first two of every dataset.

    Args:
        jobs: of the plan that was run.
        logs: where logs are.
        seconds: that the run took.
        whole: whether everything was asked for, and not some files alone, which say nothing of the table.
    """
    lines: list[str] = []
    metric = main_metric(jobs.config)
    counted = {run.row: run.system for run in jobs.plan.runs if run.heuristic}
    for dataset in jobs.config.experiment.datasets if whole else []:
        won = best(Path(jobs.comparison.table_file(dataset, "csv")), metric, knows_the_truth(jobs.plan))
        if won is not None:
            # what is only counted is called by its system alone, as the page does
            lines.append(f"Best on {dataset}: {counted.get(won[0], won[0])}, {metric} {won[1]:.4f}")
        lines.append(f"Table: {Path(jobs.comparison.table_file(dataset, 'md')).resolve()}")
    if whole:
        lines.append(f"Report: {Path(jobs.comparison.page).resolve()}")
    return [*lines, f"Logs: {', '.join(logs)}", f"Time: {duration(seconds)}"]
