"""Metrics of one target a user, from its rank; and of the recommended lists. All take and give numpy arrays."""

from __future__ import annotations

import numpy as np


def hit(ranks: np.ndarray, k: int) -> np.ndarray:
    """Hit@k per user, which is Recall@k with one target; a rank between ties counts when it is at most k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k per user: 1 / log2(rank + 1) within the first k; the ideal gain of one target is 1."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def mrr(ranks: np.ndarray) -> np.ndarray:
    """Reciprocal rank per user, without a cut-off; 0 for a missed target (infinite rank)."""
    return 1.0 / ranks


def per_user(ranks: np.ndarray, cutoffs: list[int]) -> dict[str, np.ndarray]:
    """Every metric of a rank by name: Hit@K, NDCG@K for each K, and MRR."""
    values = {f"Hit@{k}": hit(ranks, k) for k in cutoffs}
    values |= {f"NDCG@{k}": ndcg(ranks, k) for k in cutoffs}
    return values | {"MRR": mrr(ranks)}


def coverage(lists: np.ndarray, items: int) -> float:
    """Share of the catalogue that is recommended to somebody; `lists` (users, k) item ids, 0 where there is none."""
    return len(np.unique(lists[lists > 0])) / items


def gini(lists: np.ndarray, items: int) -> float:
    """Gini coefficient of how often items are recommended: 0 all alike, 1 one item takes all."""
    counts = np.sort(np.bincount(lists[lists > 0].ravel(), minlength=items + 1)[1:])
    if counts.sum() == 0:
        return 0.0
    place = np.arange(1, items + 1)
    return float((2 * place - items - 1) @ counts / (items * counts.sum()))


def mean_popularity(lists: np.ndarray, popularity: np.ndarray) -> float:
    """Mean training interactions of recommended items; `popularity` (items + 1,)."""
    chosen = lists[lists > 0]
    return float(popularity[chosen].mean()) if len(chosen) else 0.0
