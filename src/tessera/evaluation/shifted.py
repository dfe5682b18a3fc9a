"""Metrics of test sets that differ from training, from the ranks of users that were judged anyway."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.tables import ArtifactError, describe, read_table
from tessera.evaluation import metrics

SHIFTED, NATURAL = "shifted", "in distribution"
"""The kinds of the groups in tables: a set that differs, and the one beside it. The group is the name of the set."""


class Shifts:
    """The sets of a dataset, read back."""

    def __init__(self, path: str | Path) -> None:
        table = read_table(path, "shifts")
        self.path = path
        self.facts: dict[str, dict[str, Any]] = describe(path)["facts"]
        self._members = {name: _by_user(table.filter(pc.equal(table.column("shift"), name))) for name in self.facts}

    def of(self, name: str, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) bool twice: which of the test users `users` are in the shifted set, and which in the other.

        Raises:
            ArtifactError: the file knows nothing of a user.
        """
        known, shifted, natural = self._members[name]
        place = np.searchsorted(known, users)
        unknown = users[known[np.minimum(place, len(known) - 1)] != users]
        if len(unknown):
            raise ArtifactError(f"{self.path}: says nothing of {len(unknown)} test users, the first is {unknown[0]}")
        return shifted[place], natural[place]

    def groups(self, users: np.ndarray, ranks: np.ndarray, cutoffs: list[int], main: str) -> dict[str, dict[str, Any]]:
        """Kind -> set -> `users` and `metrics`; the shifted one also has its `drop_of(main)` from the other.

        Args:
            users: (n,) those that count.
            ranks: (n,) as the metrics take them.
            cutoffs: of Hit and NDCG.
            main: the metric whose drop is told.
        """
        values = metrics.per_user(ranks, cutoffs)
        groups: dict[str, dict[str, Any]] = {SHIFTED: {}, NATURAL: {}}
        for name in self.facts:
            for kind, chosen in zip((SHIFTED, NATURAL), self.of(name, users), strict=True):
                means = {metric: float(v[chosen].mean()) for metric, v in values.items()} if chosen.any() else {}
                groups[kind][name] = {"users": int(chosen.sum()), "metrics": means}
            here, there = (groups[kind][name]["metrics"].get(main) for kind in (SHIFTED, NATURAL))
            if here is not None and there:
                groups[SHIFTED][name]["metrics"][drop_of(main)] = 100 * (1 - here / there)
        return groups


def drop_of(metric: str) -> str:
    """What the loss of a metric from one set to the other is called, in percent; below 0 where it rises."""
    return f"drop of {metric}"


def _by_user(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = table.sort_by("user")
    users, *rest = (table.column(name).to_numpy(zero_copy_only=False) for name in ("user", "shifted", "natural"))
    return users, rest[0], rest[1]


def sentence(name: str, facts: Mapping[str, Any], users: int, natural: int) -> str:
    """What stands under a table of a set: how many users, how they were chosen, how far it is from training.

    Args:
        users: that count in the shifted set.
        natural: that count in the other.
    """
    here, there = facts["median_popularity"]
    if facts["kind"] == "temporal":
        seen = f"{facts['trained_after']:.1%} of the training interactions are as late"
        cold_here, cold_there = facts["cold_share"]
        cold = f"; cold targets: {cold_here:.1%} and {cold_there:.1%}" if cold_here or cold_there else ""
        return (
            f"{name}: {users:,} users whose target is from {facts['cut']} on, beside {natural:,} whose target is "
            f"earlier; training ends at {facts['training_ends']}, {seen}{cold}"
        )
    if facts["draw"] == "inverse":
        how = f"by 1 / (training interactions of the target) ^ {facts['power']:g}"
    else:
        how = f"as many of each of {facts['filled']} groups of as many items"
    return (
        f"{name}: {users:,} of {natural:,} users with a known target, drawn once {how} (seed {facts['seed']}); "
        f"their targets have {here:,.0f} training interactions on median, those of all {there:,.0f}"
    )
