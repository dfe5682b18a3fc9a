"""What the training of a row cost: seconds, memory, parameters."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tessera.artifacts.logs import duration
from tessera.reporting.costs import numbers_of
from tessera.reporting.runs import Entry


@dataclass(frozen=True)
class RunCost:
    """Of one seed, the mean over those that are known; None where none is."""

    seconds: float | None
    memory: float | None
    """Largest resident memory, MiB."""
    parameters: float | None
    """Numbers that the trained weights hold."""

    @property
    def text(self) -> str:
        """What is known, as people say it; empty where nothing is."""
        parts = [
            duration(self.seconds) if self.seconds is not None else "",
            f"{self.parameters:,.0f} parameters" if self.parameters is not None else "",
            f"{self.memory:,.0f} MiB of memory" if self.memory is not None else "",
        ]
        return ", ".join(filter(None, parts))


def run_cost(benchmarks: Path, dataset: str, entry: Entry[Any]) -> RunCost:
    """The cost of training a row, from the benchmark files of its seeds and the headers of their weights.

    What its item table, captions or codes cost is not in it.

    Args:
        benchmarks: the folder of the stage that trains.
    """
    folder = benchmarks / dataset / entry.system / entry.recommender
    rows = [row for run in entry.runs for row in numbers_of(folder / f"seed-{run.seed}.tsv", ("s", "max_rss"))]
    weights = [run.path.with_name("model.safetensors") for run in entry.runs]
    return RunCost(
        _mean([row["s"] for row in rows]),
        _mean([row["max_rss"] for row in rows]),
        _mean([parameters(path) for path in weights if path.is_file()]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, read from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
