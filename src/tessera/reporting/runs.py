"""Finished runs read back, whatever the task: the metrics of every seed, grouped to the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError
from tessera.settings.base import did_you_mean

Array = NDArray[np.float64]

ORACLE = "oracle"

FEW_USERS = 100
"""Fewer test users than this are told with a warning."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """One seed of a system."""

    path: Path
    """Its metrics.json."""
    system: str
    recommender: str = ""
    """What the system runs under; empty in tasks without such."""
    seed: int
    users: int
    """Test users that count."""
    metrics: dict[str, float | None]
    """None where the metric is not defined."""
    groups: dict[str, dict[str, Any]]
    """kind -> group -> its `metrics`, and how many users or impressions it has."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know of how it was made, e.g. that held-out interactions were seen."""
    trained: bool = True
    """Whether anything was trained; one that was fitted by counting is never the baseline unless named."""

    JUDGED: ClassVar[str]
    """The file beside metrics.json that holds what each test case got."""

    @property
    def name(self) -> str:
        """`system/recommender`, or `system`."""
        return joined(self.system, self.recommender)

    def judged_on(self) -> dict[str, Any]:
        """Counts and shares of what it was judged on."""
        return {"users": self.users}

    def count(self, counted: str) -> int:
        """How many users, or other cases, stand behind its metrics."""
        return int(getattr(self, counted))


R = TypeVar("R", bound=Run)


@dataclass(frozen=True, eq=False)
class Entry(Generic[R]):
    """A row of the results: every seed of one system, under one recommender where there is such."""

    system: str
    recommender: str
    runs: tuple[R, ...]
    more: tuple[str, ...] = ()
    """What is to be said of it beside what its runs say."""

    @property
    def name(self) -> str:
        """`system/recommender`, or `system`."""
        return joined(self.system, self.recommender)

    @property
    def is_oracle(self) -> bool:
        """The true process of a generated world: a bound, not a competitor."""
        return self.system == ORACLE

    @property
    def is_heuristic(self) -> bool:
        """Fitted by counting."""
        return not self.is_oracle and not any(run.trained for run in self.runs)

    @property
    def remarks(self) -> list[str]:
        """The remarks of its runs and those of its own, each once."""
        return list(dict.fromkeys([*(remark for run in self.runs for remark in run.remarks), *self.more]))

    def values(self, metric: str, kind: str = "", group: str = "") -> Array:
        """(seeds,) a metric overall, or within a group of `kind`; empty where it is not known."""
        values = []
        for run in self.runs:
            source = run.groups.get(kind, {}).get(group, {}).get("metrics", {}) if kind else run.metrics
            if source.get(metric) is not None:
                values.append(source[metric])
        return np.array(values, np.float64)

    def columns(self, counted: str) -> dict[tuple[str, str, str], int | None]:
        """Every (metric, kind, group) that some seed has a value for, and how many cases stand behind it."""
        counts: dict[tuple[str, str, str], int | None] = {}
        for run in self.runs:
            parts = [("", "", run.metrics, run.count(counted))]
            parts += [
                (kind, group, content["metrics"], content.get(counted))
                for kind, named in run.groups.items()
                for group, content in named.items()
            ]
            for kind, group, metrics, count in parts:
                for metric, value in metrics.items():
                    if value is not None:
                        counts.setdefault((metric, kind, group), count)
        return counts


def joined(system: str, recommender: str) -> str:
    """`system/recommender`, or `system` where there is no recommender."""
    return f"{system}/{recommender}" if recommender else system


def label(entry: Entry[Any]) -> str:
    """The name of an entry; of a heuristic or the oracle, only the system."""
    alone = entry.is_heuristic or entry.recommender in (entry.system, ORACLE)
    return entry.system if alone else entry.name


def best_of(means: Sequence[float], smaller: bool) -> float | None:
    """The mean that is marked in a column; None where nothing is compared, or all are 0 and none is better."""
    return None if len(means) < 2 or not any(means) else (min if smaller else max)(means)


def few_users_warning(users: int, which: str = "") -> str:
    """What to say of so few test users, or of those `which` are told of; empty where they are enough."""
    if users >= FEW_USERS:
        return ""
    return f"only {users:,} test user{'' if users == 1 else 's'}{which}, so little can be told apart"


def read_metrics(path: str | Path, needed: Sequence[str]) -> dict[str, Any]:
    """Read one metrics.json.

    Raises:
        ArtifactError: there is none, or it lacks a key that is needed.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected the metrics.json of a run")
    content = dict(read_json(path))
    for key in needed:
        if key not in content:
            raise ArtifactError(f"{path}: lacks the key {key!r}{did_you_mean(key, content)}")
    return content


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a training curve; none where there is no file.

    Raises:
        ArtifactError: a line is no JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: not JSON lines ({error})") from None


def grouped(runs: Iterable[R], order: Sequence[str] = ()) -> list[Entry[R]]:
    """Runs grouped by name in the given order, names outside it after that, the oracle last; seeds ascending.

    Raises:
        ArtifactError: a run stands twice.
    """
    by_name: dict[str, list[R]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    position = {name: number for number, name in enumerate(order)}
    rows = [
        Entry(seeds[0].system, seeds[0].recommender, tuple(sorted(seeds, key=lambda run: run.seed)))
        for seeds in by_name.values()
    ]
    for entry in rows:
        for one, following in pairwise(entry.runs):
            if one.seed == following.seed:
                raise ArtifactError(f"{following.path}: seed {following.seed} of {entry.name} was given already")
    return sorted(rows, key=lambda e: (e.is_oracle, position.get(e.name, len(position)), e.name))


def baselines_of(rows: Sequence[Entry[R]], named: str | None, key: str = "significance.baseline") -> list[Entry[R]]:
    """What others are compared with: the named entry, every entry of the named system, or the first that was trained.

    Empty where there is nothing to compare with.

    Args:
        key: the key of the config that names it.
    Raises:
        ValueError: nothing has that name.
    """
    real = [entry for entry in rows if not entry.is_oracle]
    if named is None:
        trained = [entry for entry in real if not entry.is_heuristic]
        return (trained or real)[:1]
    chosen = [entry for entry in real if named in (entry.name, entry.system)]
    if not chosen:
        known = {name for entry in real for name in (label(entry), entry.system)}
        raise ValueError(f"{key}: no run {named!r}{did_you_mean(named, known)}")
    return chosen


def opponent(entry: Entry[R], baselines: Sequence[Entry[R]]) -> Entry[R] | None:
    """What an entry is compared with: the baseline under its own recommender, else the first; None for a baseline."""
    if entry.is_oracle or not baselines or any(entry is baseline for baseline in baselines):
        return None
    return next((baseline for baseline in baselines if baseline.recommender == entry.recommender), baselines[0])
