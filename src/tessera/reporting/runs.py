"""Finished runs read back: the metrics of every seed, and what each test user got."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError, read_table
from tessera.evaluation import metrics
from tessera.evaluation.cold import RANKS, cold_rows
from tessera.evaluation.groups import effective_ranks, repeated
from tessera.settings.base import did_you_mean
from tessera.settings.evaluation import Evaluation

Array = NDArray[np.float64]

ORACLE = "oracle"

FEW_USERS = 100
"""Fewer test users than this are told with a warning."""

_NEEDED = ("system", "recommender", "seed", "protocol", "users", "metrics", "groups")


@dataclass(frozen=True, eq=False)
class Run:
    """One seed of a system under a recommender."""

    path: Path
    """Its metrics.json."""
    system: str
    recommender: str
    seed: int
    protocol: str
    users: int
    """Test users that count."""
    test_users: int
    """All of them, those that a policy leaves out too."""
    cold_share: float
    repeat_share: float
    """Share of the test users whose target stands in their own history."""
    metrics: dict[str, float]
    groups: dict[str, dict[str, Any]]
    remarks: tuple[str, ...] = ()
    """What a reader has to know of how it was made, e.g. that held-out interactions were seen."""
    trained: bool = True
    """Whether anything was trained; one that was fitted by counting is never the baseline unless named."""

    @property
    def name(self) -> str:
        """`system/recommender`."""
        return f"{self.system}/{self.recommender}"

    def evaluation(self, *columns: str) -> pa.Table:
        """One row a test user, sorted by user; all columns unless some are named."""
        return read_table(self.path.with_name("evaluation.parquet"), "evaluation", [*columns] or None).sort_by("user")


@dataclass(frozen=True, eq=False)
class Entry:
    """A row of the results: every seed of one system under one recommender."""

    system: str
    recommender: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """`system/recommender`."""
        return f"{self.system}/{self.recommender}"

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
        """The remarks of its runs, each once."""
        return list(dict.fromkeys(remark for run in self.runs for remark in run.remarks))

    def values(self, metric: str, kind: str = "", group: str = "") -> Array:
        """(seeds,) a metric overall, or within a group of `kind`; empty where it is not known."""
        found = []
        for run in self.runs:
            source = run.groups.get(kind, {}).get(group, {}).get("metrics", {}) if kind else run.metrics
            if metric in source:
                found.append(source[metric])
        return np.array(found, np.float64)


def label(entry: Entry) -> str:
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


def read_run(path: str | Path) -> Run:
    """Read one metrics.json.

    Raises:
        ArtifactError: it lacks a key.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected the metrics.json of a run")
    found = read_json(path)
    for key in _NEEDED:
        if key not in found:
            raise ArtifactError(f"{path}: lacks the key {key!r}{did_you_mean(key, found)}")
    return Run(
        path,
        found["system"],
        found["recommender"],
        found["seed"],
        found["protocol"],
        found["users"],
        found.get("test_users", found["users"]),
        found.get("cold_share", 0.0),
        found.get("repeat_share", 0.0),
        found["metrics"],
        found["groups"],
        tuple(found.get("remarks", ())),
        found.get("trained", True),
    )


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


def entries(paths: Iterable[str | Path], order: Sequence[str] = ()) -> list[Entry]:
    """Runs grouped by name in the given order, names outside it after that, the oracle last; seeds ascending.

    Raises:
        ArtifactError: a file lacks a key, a run stands twice, or protocols are mixed.
    """
    by_name: dict[str, list[Run]] = {}
    for path in paths:
        run = read_run(path)
        by_name.setdefault(run.name, []).append(run)
    protocols = {run.protocol: run.path for runs in by_name.values() for run in runs}
    if len(protocols) > 1:
        (one, first), (other, second) = list(protocols.items())[:2]
        raise ArtifactError(
            f"{second}: ranks by the protocol {other!r}, but {first} by {one!r}; numbers of two protocols are never "
            "shown in one table, so evaluate all runs alike"
        )
    place = {name: number for number, name in enumerate(order)}
    names = sorted(by_name, key=lambda name: (name.startswith(f"{ORACLE}/"), place.get(name, len(place)), name))
    found = []
    for name in names:
        runs = sorted(by_name[name], key=lambda run: run.seed)
        for one_run, next_run in pairwise(runs):
            if one_run.seed == next_run.seed:
                raise ArtifactError(f"{next_run.path}: seed {next_run.seed} of {name} was given already")
        found.append(Entry(runs[0].system, runs[0].recommender, tuple(runs)))
    return found


def baselines_of(found: Sequence[Entry], named: str | None) -> list[Entry]:
    """What others are compared with: the named entry, every entry of the named system, or the first that was trained.

    Empty where there is nothing to compare with.

    Raises:
        ValueError: nothing has that name.
    """
    real = [entry for entry in found if not entry.is_oracle]
    if named is None:
        trained = [entry for entry in real if not entry.is_heuristic]
        return (trained or real)[:1]
    chosen = [entry for entry in real if named in (entry.name, entry.system)]
    if not chosen:
        known = {name for entry in real for name in (label(entry), entry.system)}
        raise ValueError(f"significance.baseline: no run {named!r}{did_you_mean(named, known)}")
    return chosen


def opponent(entry: Entry, baselines: Sequence[Entry]) -> Entry | None:
    """What an entry is compared with: the baseline under its own recommender, else the first; None for a baseline."""
    if entry.is_oracle or not baselines or any(entry is baseline for baseline in baselines):
        return None
    return next((baseline for baseline in baselines if baseline.recommender == entry.recommender), baselines[0])


def _counted(run: Run, settings: Evaluation) -> tuple[pa.Table, Array]:
    """The users that count and their ranks as the metrics take them, by the policies for cold and repeated targets."""
    table = run.evaluation("user", "item", "rank", "popularity", "repeat")
    ranks, counted = effective_ranks(
        table.column("rank").to_numpy(), table.column("popularity").to_numpy(), settings, repeated(table)
    )
    return table.filter(pa.array(counted)), ranks[counted].astype(np.float64)


def _head(run: Run, table: pa.Table) -> NDArray[np.bool_]:
    """Which users have a target of the head.

    The head is a prefix of the items by (train popularity descending, id), so its users are the first of all users
    in that order, as many as metrics.json counted.
    """
    count = run.groups.get("popularity", {}).get("head", {}).get("users", 0)
    order = np.lexsort([table.column("item").to_numpy(), -table.column("popularity").to_numpy().astype(np.int64)])
    members = np.zeros(len(table), bool)
    members[order[:count]] = True
    return members


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of every test user, averaged over the seeds."""

    users: NDArray[np.int32]
    """(n,) ascending."""
    head: NDArray[np.bool_]
    """(n,) whether the target belongs to the head of the popularity curve."""
    values: dict[str, Array]
    """metric -> (n,)"""


def user_metrics(entry: Entry, settings: Evaluation) -> UserMetrics:
    """Per-user metrics of an entry, averaged over its seeds.

    Raises:
        ArtifactError: seeds judged different users, or an evaluation does not belong to its metrics.json.
    """
    first, ranks = _counted(entry.runs[0], settings)
    users = first.column("user").to_numpy()
    totals: dict[str, Array] = {}
    for number, run in enumerate(entry.runs):
        if number:
            table, ranks = _counted(run, settings)
            _same_users(run, table.column("user").to_numpy(), entry.runs[0], users)
        for name, values in metrics.per_user(ranks, settings.cutoffs).items():
            stated = run.metrics.get(name)
            if stated is not None and len(values) and abs(float(values.mean()) - stated) > 1e-6:
                raise ArtifactError(
                    f"{run.path}: {name} is {stated:.6f}, but {run.path.with_name('evaluation.parquet').name} beside "
                    f"it gives {values.mean():.6f}; evaluate the run again"
                )
            totals[name] = totals.get(name, 0.0) + values
    averaged = {name: total / len(entry.runs) for name, total in totals.items()}
    return UserMetrics(users, _head(entry.runs[0], first), averaged)


def cold_metrics(entry: Entry, settings: Evaluation) -> dict[str, dict[str, Array]]:
    """Group of cold targets -> metric -> (n,) of every user with one, by user, averaged over the seeds.

    Raises:
        ArtifactError: seeds judged different users.
    """
    totals: dict[str, dict[str, Array]] = {group: {} for group in RANKS}
    users: NDArray[np.int32] | None = None
    for run in entry.runs:
        table = run.evaluation("user", "popularity", "repeat", *(rank for rank, _ in RANKS.values()))
        table = table.filter(pa.array(cold_rows(table, settings)))
        found = table.column("user").to_numpy()
        if users is None:
            users = found
        _same_users(run, found, entry.runs[0], users)
        for group, (rank, _) in RANKS.items():
            for name, values in metrics.per_user(table.column(rank).to_numpy(), settings.cutoffs).items():
                totals[group][name] = totals[group].get(name, 0.0) + values / len(entry.runs)
    return totals


def _same_users(run: Run, users: NDArray[np.int32], other: Run, others: NDArray[np.int32]) -> None:
    if len(users) == len(others) and (users == others).all():
        return
    missing = np.setxor1d(users, others)
    first = f", the first that only one has is user {missing[0]}" if len(missing) else ""
    raise ArtifactError(
        f"{run.path.with_name('evaluation.parquet')}: judges {len(users)} users, {other.path.parent} judges "
        f"{len(others)}{first}; paired tests need the same users"
    )


def check_same_users(entry: Entry, found: UserMetrics, baseline: Entry, base: UserMetrics) -> None:
    """Refuse to compare entries that judged different users.

    Raises:
        ArtifactError: names both runs and the first user that only one of them has.
    """
    _same_users(entry.runs[0], found.users, baseline.runs[0], base.users)
