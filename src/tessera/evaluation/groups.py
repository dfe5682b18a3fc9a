"""Which users count, and which group they and their targets belong to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tessera.settings.evaluation import Evaluation


def repeated(table: pa.Table) -> np.ndarray:
    """(n,) bool, which users of an evaluation table have a target that stands in their own history."""
    if "repeat" not in table.column_names:
        return np.zeros(len(table), bool)
    return np.asarray(table.column("repeat").to_numpy(zero_copy_only=False), bool)


REPEATS_TOLD = 0.01
"""Share of repeated targets above which a reader is warned."""


def repeat_warning(count: int, users: int, settings: Evaluation, who: str = "test users") -> str:
    """What is wrong with masking where users come back to items; empty where it is not, or for few users alone."""
    if not settings.mask_seen or count <= REPEATS_TOLD * users:
        return ""
    effect = {
        "miss": "is counted as a miss for every system, whatever it recommends",
        "drop": "is left out",
        "unmasked": "is ranked among seen items, that of all others is not",
    }[settings.repeat_targets]
    return (
        f"{count:,} of {users:,} {who} have a target that stands in their own history, and it {effect}; "
        "where users come back to items, set evaluation.mask_seen: false"
    )


def effective_ranks(
    rank: np.ndarray, popularity: np.ndarray, settings: Evaluation, repeats: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks as the metrics take them, and which users count, under the policies for cold and for repeated targets.

    Args:
        rank: (n,) as in the evaluation table: infinite for a target that is masked with the history.
        popularity: (n,) training interactions of the target.
        repeats: (n,) bool, whether the target stands in the user's history; None for nobody.
    Returns:
        ranks (n,) with infinity for a missed target; counted (n,) bool.
    """
    cold = popularity == 0
    counted = ~cold if settings.cold_targets == "drop" else np.ones(len(rank), bool)
    if settings.repeat_targets == "drop" and repeats is not None:
        counted &= ~repeats
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
    head[1:] &= counts > 0  # what nobody met is of the tail, however few were met
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
    groups = {}
    low = 0
    for high in settings.history_bins:
        groups[f"{low + 1}-{high}"] = (lengths > low) & (lengths <= high)
        low = high
    return groups | {f">{low}": lengths > low}
