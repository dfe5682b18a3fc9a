"""Run time and memory of every stage, from Snakemake's benchmark files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tessera.artifacts.logs import log
from tessera.artifacts.places import final_name


@dataclass(frozen=True)
class Cost:
    """What the jobs of one rule on one dataset took."""

    rule: str
    dataset: str
    """Empty for rules over all datasets."""
    jobs: int
    seconds: float
    """Sum over the jobs."""
    longest: float
    """Seconds of the longest job."""
    cpu_seconds: float | None
    memory: float | None
    """Largest resident memory of a job, MiB; None where the job ended before it was measured."""


def _number(row: dict[str, str], key: str) -> float | None:
    try:
        return float(row[key])
    except (KeyError, ValueError, TypeError):
        return None  # Snakemake writes NA or - where a job was too short to measure


def numbers_of(path: Path, keys: Sequence[str]) -> list[dict[str, float | None]]:
    """The rows of one benchmark file, those of the keys that are numbers; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _number(row, key) for key in keys} for row in csv.DictReader(file, delimiter="\t")]


def read_costs(folder: Path, datasets: list[str]) -> list[Cost]:
    """Costs by rule and dataset from `folder/<rule>/<dataset>/....tsv`, `folder/<rule>/<dataset>.tsv` or
    `folder/<rule>.tsv`.

    Args:
        datasets: of the experiment; those on which `experiment.final` trains are told apart from them.
    """
    datasets = [*datasets, *map(final_name, datasets)]
    jobs: dict[tuple[str, str], list[dict[str, str]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).with_suffix("").parts
        dataset = parts[1] if len(parts) > 1 and parts[1] in datasets else ""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows or any(_number(row, "s") is None for row in rows):
            log.info("%s: not a benchmark file, left out", path)
            continue
        jobs.setdefault((parts[0], dataset), []).extend(rows)
    costs = []
    for (rule, dataset), rows in jobs.items():
        seconds = [_number(row, "s") or 0.0 for row in rows]
        cpu = [value for row in rows if (value := _number(row, "cpu_time")) is not None]
        memory = [value for row in rows if (value := _number(row, "max_rss")) is not None]
        costs.append(
            Cost(
                rule,
                dataset,
                len(rows),
                sum(seconds),
                max(seconds),
                sum(cpu) if cpu else None,
                max(memory, default=None),
            )
        )
    return sorted(costs, key=lambda cost: -cost.seconds)
