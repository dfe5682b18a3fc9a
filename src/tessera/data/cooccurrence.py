"""Which items stand in the same histories, and how often."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def meetings(
    offsets: np.ndarray, items: np.ndarray, n_items: int, max_history: int | None = None
) -> sparse.csr_matrix[np.int64]:
    """How often each user met each item.

    Args:
        offsets: (users + 1,) where each user's history begins.
        items: item ids, history after history.
        n_items: size of the catalogue.
        max_history: count only so many items at the end of a history; None counts all.
    Returns:
        (users, n_items + 1) counts; column 0 is the padding.
    """
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    if max_history is not None:
        recent = np.arange(len(items)) >= np.repeat(offsets[1:] - max_history, lengths)
        users, items = users[recent], items[recent]
    ones = np.ones(len(items), np.int64)
    return sparse.csr_matrix((ones, (users, items)), shape=(len(lengths), n_items + 1))  # sums repeated pairs


def cooccurrence(
    offsets: np.ndarray, items: np.ndarray, n_items: int, max_history: int | None = None
) -> sparse.csr_matrix[np.int64]:
    """How many pairs of positions i < j of a history hold the items a and b, whichever comes first, a != b.

    All distances count, and an item that stands twice makes two pairs with each other item (ReaEmb, candidates of
    the second stage). A user who met a m times and b n times has m * n such pairs, so the counts are a product of two
    sparse matrices, never items x items in memory. A history of n different items takes n^2 entries on the way.

    Args:
        offsets: (users + 1,) where each user's history begins.
        items: item ids, history after history.
        n_items: size of the catalogue.
        max_history: count only pairs among so many items at the end of a history; None counts all.
    Returns:
        (n_items + 1, n_items + 1) symmetric counts with sorted indices; nothing on the diagonal, and row 0 is empty.
    """
    met = meetings(offsets, items, n_items, max_history)
    pairs = (met.T @ met).tocoo()
    apart = pairs.row != pairs.col
    counts = sparse.csr_matrix((pairs.data[apart], (pairs.row[apart], pairs.col[apart])), shape=pairs.shape)
    counts.sort_indices()
    return counts
