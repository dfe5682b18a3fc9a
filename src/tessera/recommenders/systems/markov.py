"""A first-order Markov chain: what follows the last item, backed off to popularity."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tessera.settings.systems.markov import MarkovSettings


def fit(settings: MarkovSettings, offsets: np.ndarray, items: np.ndarray, count: int) -> dict[str, Tensor]:
    """Counts of train transitions as compressed rows (from the last item), and item counts."""
    inside = np.ones(max(0, len(items) - 1), bool)
    borders = offsets[1:-1]
    inside[borders[(borders > 0) & (borders < len(items))] - 1] = False
    before, after = items[:-1][inside], items[1:][inside]
    shape = (count + 1, count + 1)
    matrix = sparse.coo_matrix((np.ones(len(before), np.float32), (before, after)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return {
        "offsets": torch.from_numpy(matrix.indptr.astype(np.int64)),
        "items": torch.from_numpy(matrix.indices.astype(np.int32)),
        "counts": torch.from_numpy(matrix.data),
        "popularity": torch.from_numpy(np.bincount(items, minlength=count + 1).astype(np.float32)),
    }


class Scorer:
    """P(next | last) = (transitions + smoothing * P(next)) / (transitions from last + smoothing)."""

    max_history: int | None = 1

    def __init__(self, settings: MarkovSettings, tensors: dict[str, Tensor]) -> None:
        popularity = tensors["popularity"]
        self.smoothing = settings.smoothing
        self.prior = popularity / popularity.sum().clamp(min=1)
        size = len(popularity)
        self.matrix = sparse.csr_matrix(
            (tensors["counts"].numpy(), tensors["items"].numpy(), tensors["offsets"].numpy()), shape=(size, size)
        )
        self.totals = np.asarray(self.matrix.sum(axis=1)).ravel()

    def __call__(self, histories: np.ndarray, lengths: np.ndarray) -> Tensor:
        """(batch, items) probabilities after the last item of each history."""
        last = histories[np.arange(len(histories)), lengths - 1]
        seen = torch.from_numpy(self.matrix[last].toarray())
        totals = torch.from_numpy(self.totals[last]).float()[:, None]
        scores: Tensor = (seen + self.smoothing * self.prior) / (totals + self.smoothing).clamp(min=1e-9)
        return scores[:, 1:]
