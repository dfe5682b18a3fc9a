"""Metrics of one target a user, from its rank; and of the recommended lists. All take and give numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tessera.settings.evaluation import Evaluation

OF_LISTS = ("coverage", "gini", "popularity")
"""Metrics of what is recommended, which is of the whole catalogue under every protocol."""


def protocol_suffix(metric: str, protocol: str) -> str:
    """What stands behind the name of a metric wherever it is shown: ` (100 sampled)` of ranks among those, or nothing.

    Numbers of two protocols are never comparable.
    """
    full = protocol == "full" or metric.partition("@")[0] in OF_LISTS
    return "" if full else f" ({protocol})"


def hit(ranks: np.ndarray, k: int) -> np.ndarray:
    """Hit@k per user, which is Recall@k with one target; a rank between ties counts when it is at most k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k per user: 1 / log2(rank + 1) within the first k; the ideal gain of one target is 1."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def mrr(ranks: np.ndarray, k: int | None = None) -> np.ndarray:
    """Reciprocal rank per user; 0 for a missed target (infinite rank), with a cut-off also beyond the first k."""
    return 1.0 / ranks if k is None else np.where(ranks <= k, 1.0 / ranks, 0.0)


def per_user(ranks: np.ndarray, settings: Evaluation) -> dict[str, np.ndarray]:
    """Every metric of a rank by name: Hit@K, NDCG@K for each K, MRR, and MRR@K where it is asked for."""
    values = {f"Hit@{k}": hit(ranks, k) for k in settings.cutoffs}
    values |= {f"NDCG@{k}": ndcg(ranks, k) for k in settings.cutoffs}
    return values | {"MRR": mrr(ranks)} | {f"MRR@{k}": mrr(ranks, k) for k in settings.mrr_cutoffs}


def coverage(lists: np.ndarray, items: int) -> float:
    """Share of the catalogue that is recommended to somebody; `lists` (users, k) item ids, 0 where there is none."""
    return len(np.unique(lists[lists > 0])) / items


def gini(lists: np.ndarray, items: int) -> float:
    """Gini coefficient of how often items are recommended: 0 all alike, 1 one item takes all; some item has to be."""
    counts = np.sort(np.bincount(lists[lists > 0].ravel(), minlength=items + 1)[1:])
    place = np.arange(1, items + 1)
    return float((2 * place - items - 1) @ counts / (items * counts.sum()))


def mean_popularity(lists: np.ndarray, popularity: np.ndarray) -> float:
    """Mean training interactions of recommended items, of which there are some; `popularity` (items + 1,)."""
    return float(popularity[lists[lists > 0]].mean())
