"""What the training of a row cost: seconds, memory, parameters."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
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

    What its item table, captions or codes cost is not in it; what the runs cost that it is made of is.

    Args:
        benchmarks: the folder of the stage that trains.
    """
    rows = [row for run in entry.runs for row in _with_members(benchmarks / dataset, entry, run)]
    weights = [run.path.with_name("model.safetensors") for run in entry.runs]
    return RunCost(
        _mean([row["s"] for row in rows]),
        _mean([row["max_rss"] for row in rows]),
        _mean([parameters(path) for path in weights if path.is_file()]),
    )


def _with_members(folder: Path, entry: Entry[Any], run: Any) -> list[dict[str, float | None]]:
    """The measurements of a run; of one that is made of others, the seconds of all and the largest memory."""
    keys = ("s", "max_rss")
    own = numbers_of(folder / entry.system / entry.recommender / f"seed-{run.seed}.tsv", keys)
    if not (members := getattr(run, "members", ())):
        return own
    parts = [own, *(numbers_of(folder / f"{member}.tsv", keys) for member in members)]
    seconds, memory = ([_mean([row[key] for row in part]) for part in parts] for key in keys)
    return [{"s": _all(seconds, sum), "max_rss": _all(memory, max)}]


def _all(values: Sequence[float | None], joined: Callable[[list[float]], float]) -> float | None:
    """Numbers as one; None where one is not known."""
    known = [value for value in values if value is not None]
    return joined(known) if len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, read from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
