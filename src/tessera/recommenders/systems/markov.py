"""A first-order Markov chain: what follows the last item, and items like it, backed off to popularity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tessera.data.dataset import Dataset
from tessera.evaluation.histories import Histories
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Counted, TrainingHistories
from tessera.recommenders.transition_shares import borrowed, rows_to_compare, similar_items, transitions
from tessera.settings.runs import Run
from tessera.settings.systems.markov import MarkovSettings


class Markov(Counted):
    """P(next | last) = (transitions + smoothing * P(next)) / (transitions from last + smoothing).

    Where items borrow, strength * (shares of what follows similar items) is added above and strength below.
    """

    max_history = 1

    @staticmethod
    def fit(settings: MarkovSettings, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """Counts of train transitions as compressed rows (from the last item), and item counts."""
        matrix = transitions(histories.offsets, histories.items, items)
        return {
            "offsets": torch.from_numpy(matrix.indptr.astype(np.int64)),
            "items": torch.from_numpy(matrix.indices.astype(np.int32)),
            "counts": torch.from_numpy(matrix.data),
            "popularity": torch.from_numpy(np.bincount(histories.items, minlength=items + 1).astype(np.float32)),
        }

    @classmethod
    def make(cls, run: Run, dataset: Dataset, data: Path, inputs: RunInputs, folder: Path) -> dict[str, Tensor]:
        """See `Fixed.make`; shares of what follows similar items beside the counts, where items borrow."""
        made = super().make(run, dataset, data, inputs, folder)
        settings = run.method
        assert isinstance(settings, MarkovSettings)
        if settings.similar is None:
            return made
        assert settings.similar.table is not None
        vectors, present = rows_to_compare(inputs, settings.similar.table, dataset.n_items)
        near = similar_items(vectors, present, settings.similar.neighbours)
        lent = borrowed(_rows(made, "", len(vectors)), near, settings.kept)
        return made | {
            "near_offsets": torch.from_numpy(lent.indptr.astype(np.int64)),
            "near_items": torch.from_numpy(lent.indices.astype(np.int32)),
            "near_counts": torch.from_numpy(lent.data),
        }

    def __init__(self, settings: MarkovSettings, tensors: Mapping[str, Tensor]) -> None:
        popularity = tensors["popularity"]
        self.smoothing = settings.smoothing
        self.prior = popularity / popularity.sum().clamp(min=1)
        size = len(popularity)
        self.matrix = _rows(tensors, "", size)
        self.totals = np.asarray(self.matrix.sum(axis=1)).ravel()
        self.near = None
        if settings.similar is not None:
            lent = _rows(tensors, "near_", size) * np.float32(settings.strength)
            self.near = lent
            self.totals = self.totals + np.float32(settings.strength) * (np.diff(lent.indptr) > 0)

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) probabilities after the last item of each history."""
        last = histories.items.numpy()[np.arange(len(histories)), histories.lengths.numpy() - 1]
        counts = self.matrix[last] if self.near is None else self.matrix[last] + self.near[last]
        seen = torch.from_numpy(counts.toarray())
        totals = torch.from_numpy(self.totals[last]).float()[:, None]
        scores: Tensor = (seen + self.smoothing * self.prior) / (totals + self.smoothing).clamp(min=1e-9)
        return scores[:, 1:]


def _rows(tensors: Mapping[str, Tensor], name: str, size: int) -> sparse.csr_matrix[np.float32]:
    """A matrix (size, size) from its compressed rows."""
    parts = (tensors[f"{name}{part}"].numpy() for part in ("counts", "items", "offsets"))
    return sparse.csr_matrix(tuple(parts), shape=(size, size))
