"""Cold targets: items that no training interaction names, ranked as they are scored, and what chance would give.

`cold_targets` says how such targets enter the averages over all users, where they are mostly misses. Here they stand
alone, twice: among the whole catalogue, where a system that never heard of an item puts all others before it, and
among the cold items alone, where every system starts alike and only what it knows of their content can help.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tessera.evaluation import metrics
from tessera.evaluation.groups import effective_ranks, repeated
from tessera.settings.evaluation import Evaluation

KIND = "cold"
"""The kind of the groups in metrics.json and in tables."""
AMONG_ALL, AMONG_COLD, OTHERS = "cold", "cold only", "warm"
"""Cold targets among the whole catalogue, and among cold items alone; all other targets."""
RANKS = {AMONG_ALL: ("rank", "candidates"), AMONG_COLD: ("cold_rank", "cold_candidates")}
"""The columns of an evaluation that hold the rank of a cold target and among how many it stands."""
SHOWN = 10
"""Fewer cold targets than this get no column in printed tables, and no test."""


def chance(candidates: np.ndarray, settings: Evaluation) -> dict[str, np.ndarray]:
    """What a random order is expected to give, by metric, (n,) each.

    Args:
        candidates: (n,) how many items are ranked, the target among them.
        settings: cut-offs of Hit, NDCG and MRR.
    """
    counts = np.maximum(np.asarray(candidates, np.int64), 1)
    most = int(counts.max(initial=1))
    place = np.arange(1, most + 1)
    gains, inverse = np.cumsum(1 / np.log2(place + 1)), np.cumsum(1 / place)
    expected: dict[str, np.ndarray] = {f"Hit@{k}": np.minimum(counts, k) / counts for k in settings.cutoffs}
    expected |= {f"NDCG@{k}": gains[np.minimum(counts, k) - 1] / counts for k in settings.cutoffs}
    expected |= {f"MRR@{k}": inverse[np.minimum(counts, k) - 1] / counts for k in settings.mrr_cutoffs}
    return expected | {"MRR": inverse[counts - 1] / counts}


def cold_rows(table: pa.Table, settings: Evaluation) -> np.ndarray:
    """(n,) bool, which users of an evaluation have a cold target that `repeat_targets` leaves in."""
    cold = np.asarray(table.column("popularity").to_numpy() == 0)
    return cold & ~repeated(table) if settings.repeat_targets == "drop" else cold


def cold_groups(table: pa.Table, settings: Evaluation) -> dict[str, dict[str, Any]]:
    """Cold targets and all others: for each group `users` and `metrics`, for cold ones also `chance` and `candidates`.

    Empty where there is no cold target.

    Args:
        table: an evaluation artifact.
        settings: cut-offs and policies; `cold_targets` changes nothing here.
    """
    if not set(RANKS[AMONG_COLD]) <= set(table.column_names):
        return {}
    cold = cold_rows(table, settings)
    if not cold.any():
        return {}
    groups: dict[str, dict[str, Any]] = {}
    for group, (rank, among) in RANKS.items():
        ranks, candidates = (table.column(name).to_numpy()[cold] for name in (rank, among))
        reachable = np.isfinite(ranks)  # a masked target is a miss for chance, too
        groups[group] = {
            "users": int(cold.sum()),
            "metrics": _means(metrics.per_user(ranks, settings)),
            "chance": _means({name: v * reachable for name, v in chance(candidates, settings).items()}),
            "candidates": float(candidates.mean()),
        }
    popularity, repeats = table.column("popularity").to_numpy(), repeated(table)
    ranks, counted = effective_ranks(table.column("rank").to_numpy(), popularity, settings, repeats)
    warm = counted & (popularity > 0)
    values = metrics.per_user(ranks[warm], settings)
    return groups | {OTHERS: {"users": int(warm.sum()), "metrics": _means(values) if warm.any() else {}}}


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(each.mean()) for name, each in values.items()}
