"""A first-order Markov chain: what follows the last item, backed off to popularity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Counted, TrainingHistories
from tessera.settings.systems.markov import MarkovSettings


class Markov(Counted):
    """P(next | last) = (transitions + smoothing * P(next)) / (transitions from last + smoothing)."""

    max_history = 1

    @staticmethod
    def fit(settings: MarkovSettings, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """Counts of train transitions as compressed rows (from the last item), and item counts."""
        rows, offsets = histories.items, histories.offsets
        inside = np.ones(max(0, len(rows) - 1), bool)
        borders = offsets[1:-1]
        inside[borders[(borders > 0) & (borders < len(rows))] - 1] = False
        before, after = rows[:-1][inside], rows[1:][inside]
        shape = (items + 1, items + 1)
        matrix = sparse.coo_matrix((np.ones(len(before), np.float32), (before, after)), shape=shape).tocsr()
        matrix.sum_duplicates()
        return {
            "offsets": torch.from_numpy(matrix.indptr.astype(np.int64)),
            "items": torch.from_numpy(matrix.indices.astype(np.int32)),
            "counts": torch.from_numpy(matrix.data),
            "popularity": torch.from_numpy(np.bincount(rows, minlength=items + 1).astype(np.float32)),
        }

    def __init__(self, settings: MarkovSettings, tensors: Mapping[str, Tensor]) -> None:
        popularity = tensors["popularity"]
        self.smoothing = settings.smoothing
        self.prior = popularity / popularity.sum().clamp(min=1)
        size = len(popularity)
        self.matrix = sparse.csr_matrix(
            (tensors["counts"].numpy(), tensors["items"].numpy(), tensors["offsets"].numpy()), shape=(size, size)
        )
        self.totals = np.asarray(self.matrix.sum(axis=1)).ravel()

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) probabilities after the last item of each history."""
        last = histories.items.numpy()[np.arange(len(histories)), histories.lengths.numpy() - 1]
        seen = torch.from_numpy(self.matrix[last].toarray())
        totals = torch.from_numpy(self.totals[last]).float()[:, None]
        scores: Tensor = (seen + self.smoothing * self.prior) / (totals + self.smoothing).clamp(min=1e-9)
        return scores[:, 1:]
