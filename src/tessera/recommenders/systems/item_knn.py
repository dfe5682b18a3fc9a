"""Item-based nearest neighbours: cosine of train co-occurrence, summed over the history with decaying weights.

Deshpande and Karypis (TOIS 2004), section 4, with shrinkage; recent items of the history count more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tessera.data.cooccurrence import meetings
from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Counted, TrainingHistories
from tessera.settings.systems.item_knn import ItemKNNSettings

# scores of items x items made at once
_BLOCK = 2**25


class ItemKNN(Counted):
    """Sum over the history of decayed similarities."""

    @staticmethod
    def fit(settings: ItemKNNSettings, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """The nearest neighbours of each item, most similar first: ids and similarities (items + 1, neighbours)."""
        matrix = meetings(histories.offsets, histories.items, items, settings.max_history).astype(np.float32)
        matrix.data[:] = 1.0  # an item met twice is one user
        norms = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
        kept = min(settings.neighbours, items)
        ids = np.zeros((items + 1, kept), np.int32)
        similarities = np.zeros((items + 1, kept), np.float32)
        transposed = matrix.T.tocsr()
        size = max(1, _BLOCK // (items + 1))
        for start in range(0, items + 1, size):
            block = (transposed[start : start + size] @ matrix).toarray()
            block /= norms[start : start + size, None] * norms + settings.shrinkage + 1e-12
            rows = np.arange(len(block))
            block[rows, rows + start] = 0.0
            # descending by similarity, ties by id: the same neighbours on every machine
            best = np.argsort(-block, axis=1, kind="stable")[:, :kept]
            ids[start : start + size] = best
            similarities[start : start + size] = np.take_along_axis(block, best, 1)
        return {"neighbours": torch.from_numpy(ids), "similarities": torch.from_numpy(similarities)}

    def __init__(self, settings: ItemKNNSettings, tensors: Mapping[str, Tensor]) -> None:
        self.neighbours = tensors["neighbours"].long()
        self.similarities = tensors["similarities"]
        self.decay = settings.decay
        self.max_history = settings.max_history

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores."""
        ids = histories.items
        age = (histories.lengths[:, None] - 1 - torch.arange(ids.shape[1])).clamp(min=0)
        weight = torch.where(ids > 0, self.decay ** age.float(), 0.0)
        scores = torch.zeros(len(ids), len(self.neighbours))
        values = self.similarities[ids] * weight[..., None]
        scores.scatter_add_(1, self.neighbours[ids].flatten(1), values.flatten(1))
        return scores[:, 1:]
