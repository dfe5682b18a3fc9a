"""The last lines of a run: the best system, its table, the report, the logs, the time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tessera.artifacts.logs import duration
from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.settings.config import Config

_TRUTH = {"raw/latents.parquet", "raw/truth.parquet"}


def knows_the_truth(plan: Plan) -> set[str]:
    """Systems that read what only the maker of a generated world knows, and the oracle: bounds, and never the best."""
    truth = {run.system for run in plan.runs if any(_is_truth(plan.config, table) for table in _tables(plan, run.path))}
    return truth | {"oracle"}


def _tables(plan: Plan, run: str) -> Iterator[str]:
    """Item tables that a run reads, itself or through codes, starts and other runs."""
    for noun in plan.closure([Noun("run", run)]):
        if noun.kind == "table":
            yield noun.name


def _is_truth(config: Config, table: str) -> bool:
    """Whether a table is made of a file that only a generated world has."""
    return bool(_TRUTH.intersection(config.tables[table].READS_OF_DATASET.values()))


def best(table: Path, metric: str, without: set[str]) -> tuple[str, float] | None:
    """The system with the best mean of a metric in a table (CSV), and the mean; None where the table has none."""
    with suppress(OSError, csv.Error), table.open(encoding="utf-8", newline="") as file:
        rows = [(row.get("system") or row["model"], row) for row in csv.DictReader(file)]
        means = [
            ("/".join(dict.fromkeys(filter(None, [name, row.get("recommender")]))), float(row[metric]))
            for name, row in rows
            if name not in without and row.get(metric)
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
    for dataset in jobs.config.experiment.datasets if whole else []:
        won = best(Path(jobs.table_file(dataset, "csv")), metric, knows_the_truth(jobs.plan))
        if won is not None:
            lines.append(f"Best on {dataset}: {won[0]}, {metric} {won[1]:.4f}")
        lines.append(f"Table: {Path(jobs.table_file(dataset, 'md')).resolve()}")
    if whole:
        lines.append(f"Report: {Path(jobs.page).resolve()}")
    return [*lines, f"Logs: {', '.join(logs)}", f"Time: {duration(seconds)}"]
