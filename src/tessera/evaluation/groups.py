"""Which users count, and which group they and their targets belong to."""

from __future__ import annotations

import numpy as np

from tessera.settings.evaluation import Evaluation


def effective_ranks(rank: np.ndarray, popularity: np.ndarray, settings: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Ranks as the metrics take them, and which users count, under the policy for cold targets.

    Returns:
        ranks (n,) with infinity for a missed cold target; counted (n,) bool.
    """
    cold = popularity == 0
    counted = ~cold if settings.cold_targets == "drop" else np.ones(len(rank), bool)
    return (np.where(cold, np.inf, rank) if settings.cold_targets == "miss" else rank), counted


def item_groups(popularity: np.ndarray, settings: Evaluation) -> dict[str, dict[str, np.ndarray]]:
    """Groups of items by train popularity: head/tail, and bins with equal shares of the interactions.

    Args:
        popularity: (items + 1,) training interactions an item.
    Returns:
        kind -> name -> (items + 1,) bool. Ties are cut by item id, so every item is in one group of a kind.
    """
    counts = popularity[1:]
    order = np.argsort(-counts, kind="stable") + 1
    head = np.zeros(len(popularity), bool)
    head[order[: max(1, round(settings.head_share * len(counts)))]] = True
    tail = ~head
    tail[0] = False
    # the mass before an item decides its bin: the most popular items fill bin 1
    mass = np.concatenate([[0], np.cumsum(counts[order - 1])[:-1]]) / max(1, counts.sum())
    bin_of = np.full(len(popularity), -1)
    bin_of[order] = np.minimum((mass * settings.popularity_bins).astype(int), settings.popularity_bins - 1)
    bins = {str(number + 1): bin_of == number for number in range(settings.popularity_bins)}
    return {"popularity": {"head": head, "tail": tail}, "popularity_bins": bins}


def history_groups(lengths: np.ndarray, settings: Evaluation) -> dict[str, np.ndarray]:
    """Groups of users by the length of their history: name -> (n,) bool."""
    found = {}
    low = 0
    for high in settings.history_bins:
        found[f"{low + 1}-{high}"] = (lengths > low) & (lengths <= high)
        low = high
    return found | {f">{low}": lengths > low}
