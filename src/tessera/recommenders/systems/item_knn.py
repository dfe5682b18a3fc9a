"""Item-based nearest neighbours: cosine of train co-occurrence, summed over the history with decaying weights.

Deshpande and Karypis (TOIS 2004), section 4, with shrinkage; recent items of the history count more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from tessera.data.cooccurrence import meetings
from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Counted, TrainingHistories
from tessera.settings.systems.item_knn import ItemKNNSettings

# pairs of items compared at once, where a single item has no more
_PAIRS = 2**21
# keys that sort pairs: the bits of the similarity, the most similar first, then the id
_ID = np.uint64(32)
_UNLIKE = np.uint64(0xFFFFFFFF)
_NONE = np.uint64(2**64 - 1)


class ItemKNN(Counted):
    """Sum over the history of decayed similarities."""

    @staticmethod
    def fit(settings: ItemKNNSettings, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """The nearest neighbours of each item, most similar first: ids and similarities (items + 1, neighbours).

        Only pairs of items that somebody met are made, some items at a time: work grows with the pairs in histories,
        memory with items x neighbours.
        """
        met = meetings(histories.offsets, histories.items, items, settings.max_history).astype(np.float32)
        met.data[:] = 1.0  # an item met twice is one user
        norms = np.sqrt(np.asarray(met.sum(axis=0)).ravel())
        kept = min(settings.neighbours, items)
        ids = np.empty((items + 1, kept), np.int32)
        similarities = np.empty((items + 1, kept), np.float32)
        users = met.T.tocsr()
        for start, stop in _blocks(np.minimum(users.astype(np.int64) @ np.diff(met.indptr), items + 1) + kept):
            together = users[start:stop] @ met
            sizes = np.diff(together.indptr)
            row, column = np.repeat(np.arange(start, stop), sizes), together.indices
            similarity = together.data / (norms[row] * norms[column] + settings.shrinkage + 1e-12)
            similarity[row == column] = 0.0
            ids[start:stop], similarities[start:stop] = _nearest(similarity, column, sizes, kept)
        return {"neighbours": torch.from_numpy(ids), "similarities": torch.from_numpy(similarities)}

    def __init__(self, settings: ItemKNNSettings, tensors: Mapping[str, Tensor]) -> None:
        self.neighbours = tensors["neighbours"]
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
        scores.scatter_add_(1, self.neighbours[ids].flatten(1).long(), values.flatten(1))
        return scores[:, 1:]


def _blocks(pairs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Items from start to stop that have no more than `_PAIRS` together, one item at least."""
    ends = np.cumsum(pairs)
    start = 0
    while start < len(pairs):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        yield start, stop
        start = stop


def _nearest(similarity: np.ndarray, column: np.ndarray, sizes: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of each compressed row, descending by similarity, ties by id: the same neighbours on every machine.

    Rows are as sorting all items would order them: behind similar items come those of similarity 0, by id.

    Args:
        similarity: (pairs,) of no negative number, row after row.
        column: (pairs,) item ids.
        sizes: (rows,) pairs of each row.
        kept: how many of a row are wanted, no more than there are items.
    Returns:
        ids (rows, kept) and similarities (rows, kept).
    """
    # numbers without a sign are ordered as their bits are
    keys = (_UNLIKE - similarity.view(np.uint32)) << _ID | column.astype(np.uint64)
    starts = np.cumsum(sizes) - sizes
    best = np.empty((len(sizes), kept), np.uint64)
    for rows in _alike(sizes):
        columns = np.arange(int(sizes[rows].max()))
        real = columns < sizes[rows, None]
        own = np.full(real.shape, _NONE)
        own[real] = keys[(starts[rows, None] + columns)[real]]
        own[own >> _ID == _UNLIKE] = _NONE  # the item itself, which is not similar: it stands by its id
        if sizes[rows].min() <= kept:
            own = np.concatenate([own, _unlike(own, kept)], axis=1)
        best[rows] = np.sort(np.partition(own, kept - 1, axis=1)[:, :kept], axis=1)
    similarities = (_UNLIKE - (best >> _ID)).astype(np.uint32).view(np.float32)
    return (best & _UNLIKE).astype(np.int32), similarities


def _alike(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of like size, the largest of each part less than twice its smallest: little padding."""
    magnitude = np.frexp(sizes)[1]
    for part in np.unique(magnitude):
        yield np.flatnonzero(magnitude == part)


def _unlike(own: np.ndarray, kept: int) -> np.ndarray:
    """Keys (rows, kept) of the ids below `kept` that are not in `own` (rows, pairs), as of similarity 0."""
    rows, columns = np.nonzero((own != _NONE) & (own & _UNLIKE < kept))
    keys = np.tile(_UNLIKE << _ID | np.arange(kept, dtype=np.uint64), (len(own), 1))
    keys[rows, (own[rows, columns] & _UNLIKE).astype(np.int64)] = _NONE
    return keys
