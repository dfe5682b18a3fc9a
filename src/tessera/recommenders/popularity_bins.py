"""Items by how popular they were in training."""

from __future__ import annotations

import numpy as np


def popularity_bins(popularity: np.ndarray, bins: int) -> np.ndarray:
    """Bins of items, the most popular first; each is filled until it holds its share of the training interactions.

    A bin takes items until it holds one part in `bins` of all interactions, then the next begins, as in PAD's code;
    what is left is the last one's. Where few items hold much, the last bins stay empty. Ties go by item id.

    Args:
        popularity: (items + 1,) training interactions an item.
    Returns:
        (items + 1,) int64 from 1 to `bins`, 0 for the padding.
    """
    counts = popularity[1:].astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    filled = np.cumsum(counts[order]) * bins  # whole numbers: a share is met alike on every machine
    ends, mass = [], 0
    for _ in range(bins - 1):
        end = int(np.searchsorted(filled, mass + int(counts.sum())))
        if end >= len(order):
            break
        ends.append(end)
        mass = int(filled[end])
    bin_of = np.zeros(len(popularity), np.int64)
    bin_of[order + 1] = 1 + np.searchsorted(np.array(ends, np.int64), np.arange(len(order)))
    return bin_of
