"""Runs that rank the next item, read back: their metrics, and what each test user got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.tables import ArtifactError, read_table
from tessera.evaluation import metrics
from tessera.evaluation.cold import RANKS, cold_rows
from tessera.evaluation.groups import effective_ranks, repeated
from tessera.reporting.runs import Array, Entry, Run, grouped, read_metrics
from tessera.settings.evaluation import Evaluation
from tessera.settings.missing import Missing

_NEEDED = ("system", "recommender", "seed", "protocol", "users", "metrics", "groups")


@dataclass(frozen=True, eq=False, kw_only=True)
class RankingRun(Run):
    """One seed of a system under a recommender."""

    protocol: str
    test_users: int
    """All that were judged, those that a policy leaves out too."""
    cold_share: float
    repeat_share: float
    """Share of the test users whose target stands in their own history."""
    drawn_from: int | None = None
    """How many test users there are, where a part of them was drawn."""
    missing: Missing | None = None
    """What it lost."""
    apart_from_losses: str = ""
    """Shared with the runs that differ in what they lost alone; empty where it is not known."""
    user_vectors: tuple[dict[str, Any], ...] = ()
    """Of some test users, what each of several vectors stands for (`recommenders/user_vectors.py`)."""
    members: tuple[str, ...] = ()
    """Folders of the runs that it is made of, below `runs`."""

    JUDGED = "evaluation.parquet"

    def judged_on(self) -> dict[str, Any]:
        """Counts and shares of what it was judged on."""
        counts = {name: getattr(self, name) for name in ("users", "test_users", "cold_share", "repeat_share")}
        return counts | ({"drawn_from": self.drawn_from} if self.drawn_from is not None else {})

    def evaluation(self, *columns: str) -> pa.Table:
        """One row a test user, sorted by user; all columns unless some are named."""
        return read_table(self.path.with_name(self.JUDGED), "evaluation", [*columns] or None).sort_by("user")


def read_run(path: str | Path) -> RankingRun:
    """Read one metrics.json.

    Raises:
        ArtifactError: there is none, or it lacks a key.
    """
    content = read_metrics(path, _NEEDED)
    return RankingRun(
        path=Path(path),
        **{key: content[key] for key in _NEEDED},
        test_users=content.get("test_users", content["users"]),
        cold_share=content.get("cold_share", 0.0),
        repeat_share=content.get("repeat_share", 0.0),
        drawn_from=content.get("drawn_from"),
        missing=Missing.model_validate(content["missing"]) if content.get("missing") else None,
        apart_from_losses=content.get("apart_from_losses", ""),
        user_vectors=tuple(content.get("user_vectors", ())),
        members=tuple(content.get("members", ())),
        remarks=tuple(content.get("remarks", ())),
        trained=content.get("trained", True),
    )


def entries(paths: Iterable[str | Path], order: Sequence[str] = ()) -> list[Entry[RankingRun]]:
    """Runs as rows in the given order (`runs.grouped`).

    Raises:
        ArtifactError: a file lacks a key, a run stands twice, or protocols are mixed.
    """
    runs = [read_run(path) for path in paths]
    protocols = {run.protocol: run.path for run in runs}
    if len(protocols) > 1:
        (one, first), (other, second) = list(protocols.items())[:2]
        raise ArtifactError(
            f"{second}: ranks by the protocol {other!r}, but {first} by {one!r}; numbers of two protocols are never "
            "shown in one table, so evaluate all runs alike"
        )
    return grouped(runs, order)


def counted(run: RankingRun, settings: Evaluation, *more: str) -> tuple[pa.Table, Array]:
    """The users that count and their ranks as the metrics take them, by the policies for cold and repeated targets.

    Args:
        more: columns besides those of user, target and rank.
    """
    table = run.evaluation("user", "item", "rank", "popularity", "repeat", *more)
    ranks, members = effective_ranks(
        table.column("rank").to_numpy(), table.column("popularity").to_numpy(), settings, repeated(table)
    )
    return table.filter(pa.array(members)), ranks[members].astype(np.float64)


def _head(run: RankingRun, table: pa.Table) -> NDArray[np.bool_]:
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


def user_metrics(entry: Entry[RankingRun], settings: Evaluation) -> UserMetrics:
    """Per-user metrics of an entry, averaged over its seeds.

    Raises:
        ArtifactError: seeds judged different users, or an evaluation does not belong to its metrics.json.
    """
    first, ranks = counted(entry.runs[0], settings)
    users = first.column("user").to_numpy()
    totals: dict[str, Array] = {}
    for number, run in enumerate(entry.runs):
        if number:
            table, ranks = counted(run, settings)
            same_users(run, table.column("user").to_numpy(), entry.runs[0], users)
        for name, values in metrics.per_user(ranks, settings).items():
            stated = run.metrics.get(name)
            if stated is not None and len(values) and abs(float(values.mean()) - stated) > 1e-6:
                raise ArtifactError(
                    f"{run.path}: {name} is {stated:.6f}, but {run.path.with_name('evaluation.parquet').name} beside "
                    f"it gives {values.mean():.6f}; evaluate the run again"
                )
            totals[name] = totals.get(name, 0.0) + values
    averaged = {name: total / len(entry.runs) for name, total in totals.items()}
    return UserMetrics(users, _head(entry.runs[0], first), averaged)


def cold_metrics(entry: Entry[RankingRun], settings: Evaluation) -> dict[str, dict[str, Array]]:
    """Group of cold targets -> metric -> (n,) of every user with one, by user, averaged over the seeds.

    Raises:
        ArtifactError: seeds judged different users.
    """
    totals: dict[str, dict[str, Array]] = {group: {} for group in RANKS}
    first: NDArray[np.int32] | None = None
    for run in entry.runs:
        table = run.evaluation("user", "popularity", "repeat", *(rank for rank, _ in RANKS.values()))
        table = table.filter(pa.array(cold_rows(table, settings)))
        users = table.column("user").to_numpy()
        first = users if first is None else first
        same_users(run, users, entry.runs[0], first)
        for group, (rank, _) in RANKS.items():
            for name, values in metrics.per_user(table.column(rank).to_numpy(), settings).items():
                totals[group][name] = totals[group].get(name, 0.0) + values / len(entry.runs)
    return totals


def same_users(run: RankingRun, users: NDArray[np.int32], other: RankingRun, others: NDArray[np.int32]) -> None:
    """Refuse runs that judged different users.

    Raises:
        ArtifactError: names both runs and the first user that only one of them has.
    """
    if len(users) == len(others) and (users == others).all():
        return
    missing = np.setxor1d(users, others)
    first = f", the first that only one has is user {missing[0]}" if len(missing) else ""
    raise ArtifactError(
        f"{run.path.with_name('evaluation.parquet')}: judges {len(users)} users, {other.path.parent} judges "
        f"{len(others)}{first}; paired tests need the same users"
    )


def check_same_users(
    entry: Entry[RankingRun], judged: UserMetrics, baseline: Entry[RankingRun], base: UserMetrics
) -> None:
    """Refuse to compare entries that judged different users.

    Raises:
        ArtifactError: names both runs and the first user that only one of them has.
    """
    same_users(entry.runs[0], judged.users, baseline.runs[0], base.users)
