"""What follows an item in training histories: counts, what is borrowed from similar items, shares of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from tessera.artifacts.logs import log
from tessera.data.directions import unit_rows
from tessera.evaluation.nearest import nearest
from tessera.recommenders.inputs import RunInputs, Table

_ROWS = 4096
"""Rows of borrowed transitions that are made at a time."""


def transitions(offsets: np.ndarray, items: np.ndarray, count: int) -> sparse.csr_matrix[np.float32]:
    """How often an item follows another in training histories.

    Args:
        offsets: (users + 1,) user u stands in rows offsets[u - 1]:offsets[u].
        items: (rows,) in time order within a user.
        count: items of the catalogue.
    Returns:
        (count + 1, count + 1) from the row's item to the column's, columns ascending.
    """
    inside = np.ones(max(0, len(items) - 1), bool)
    borders = offsets[1:-1]
    inside[borders[(borders > 0) & (borders < len(items))] - 1] = False
    before, after = items[:-1][inside], items[1:][inside]
    shape = (count + 1, count + 1)
    matrix = sparse.coo_matrix((np.ones(len(before), np.float32), (before, after)), shape=shape).tocsr()
    matrix.sum_duplicates()
    return matrix


class Neighbours(NamedTuple):
    """The items that are most similar to each."""

    items: np.ndarray
    """(items + 1, n) the most similar first."""
    weights: np.ndarray
    """(items + 1, n) float32 cosines, not below 0; 0 where an item has no vector."""


def rows_to_compare(inputs: RunInputs, table: str, items: int) -> Table:
    """A table by which items are similar, without the rows that training has lost; raises as `RunInputs.read_table`."""
    vectors, present = inputs.read_table(table, items)
    lost = inputs.lost(table, items)
    gone = lost.at(training=True) if lost is not None else None
    return vectors, present if gone is None else present & ~gone


def similar_items(vectors: Tensor, present: Tensor, count: int) -> Neighbours:
    """The nearest items by cosine of centred vectors, exactly.

    Args:
        vectors: (items + 1, dim), row 0 the padding.
        present: (items + 1,) which items have a vector; others have no neighbour and are none.
        count: neighbours an item; fewer where there are fewer items.
    """
    ids = np.flatnonzero(present.cpu().numpy()[1:]) + 1
    items, weights = np.zeros((len(vectors), count), np.int64), np.zeros((len(vectors), count), np.float32)
    if len(ids) < 2:
        return Neighbours(items, weights)
    rows = vectors[ids].float().cpu().numpy()
    rows = rows - rows.mean(0, dtype=np.float64).astype(np.float32)
    near, cosines = nearest(unit_rows(rows), np.arange(len(rows)), count)
    items[ids, : near.shape[1]] = ids[near]
    weights[ids, : near.shape[1]] = np.maximum(cosines, 0)
    return Neighbours(items, weights)


def borrowed(
    matrix: sparse.csr_matrix[np.float32], near: Neighbours, most: int | None = None
) -> sparse.csr_matrix[np.float32]:
    """Shares of what follows the items that are similar to an item, their transitions pooled by similarity.

    Args:
        matrix: `transitions`.
        near: similar items.
        most: the largest of a row to keep; None keeps all.
    Returns:
        (items + 1, items + 1), whose rows sum to one, to less where some were not kept, to zero where there is nothing
        to borrow.
    """
    size, count = near.items.shape
    parts = []
    for first in range(0, size, _ROWS):
        items, weights = near.items[first : first + _ROWS], near.weights[first : first + _ROWS]
        rows = np.repeat(np.arange(len(items)), count)
        shape = (len(items), size)
        chosen = sparse.csr_matrix((weights.ravel(), (rows, items.ravel())), shape=shape)
        pooled = (chosen @ matrix).tocsr()
        pooled.eliminate_zeros()
        pooled.sort_indices()
        totals = np.asarray(pooled.sum(axis=1)).ravel()
        pooled.data /= np.repeat(totals, np.diff(pooled.indptr))
        parts.append(pooled if most is None else _largest(pooled, most))
    return sparse.vstack(parts, format="csr", dtype=np.float32)


def _largest(matrix: sparse.csr_matrix[np.float32], most: int) -> sparse.csr_matrix[np.float32]:
    """The largest numbers of each row, of equals those of the lower columns; in descending order within a row."""
    sizes = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    chosen = order[np.arange(len(order)) - np.repeat(matrix.indptr[:-1], sizes) < most]
    bounds = np.concatenate([[0], np.cumsum(np.minimum(sizes, most))])
    return sparse.csr_matrix((matrix.data[chosen], matrix.indices[chosen], bounds), shape=matrix.shape)


def _padded(matrix: sparse.csr_matrix[np.float32], width: int) -> tuple[Tensor, Tensor]:
    """Columns and numbers (rows, width) of a matrix of no more a row; what is left over is 0, of column 0."""
    sizes = np.diff(matrix.indptr)
    real = np.arange(width) < sizes[:, None]
    items, numbers = np.zeros(real.shape, np.int32), np.zeros(real.shape, np.float32)
    items[real], numbers[real] = matrix.indices, matrix.data
    return torch.from_numpy(items), torch.from_numpy(numbers)


class TransitionShares(nn.Module):
    """Of each item, the shares of those that follow it, as arrays of one width that are saved with weights."""

    followers: Tensor
    counts: Tensor
    totals: Tensor
    near: Tensor
    shares: Tensor
    lends: Tensor

    ROWS = ("followers", "counts", "totals", "near", "shares", "lends")
    """What has a row an item."""

    def __init__(self, items: int, kept: int, smoothing: float, borrows: bool) -> None:
        """
        Args:
            items: of the catalogue.
            kept: followers kept an item.
            smoothing: pseudo-transitions from every item, spread evenly over the catalogue.
            borrows: whether items borrow transitions from similar ones.
        """
        super().__init__()
        self.items, self.kept, self.smoothing, self.borrows = items, kept, smoothing, borrows
        # of one width in every catalogue, so that a run may go on from one of other items
        width = kept if borrows else 0
        for name, shape, kind in (
            ("followers", (items + 1, kept), torch.int32),
            ("counts", (items + 1, kept), torch.float32),
            ("totals", (items + 1,), torch.float32),
            ("near", (items + 1, width), torch.int32),
            ("shares", (items + 1, width), torch.float32),
            ("lends", (items + 1,), torch.float32),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=kind))

    @torch.no_grad()
    def count(self, offsets: np.ndarray, items: np.ndarray, neighbours: Neighbours | None) -> None:
        """Count in training histories; see `transitions`. Rows that are cut are told.

        Args:
            neighbours: similar items, where items borrow.
        """
        matrix = transitions(offsets, items, self.items)
        self.totals.copy_(torch.from_numpy(np.asarray(matrix.sum(axis=1)).ravel()))
        if cut := int((np.diff(matrix.indptr) > self.kept).sum()):
            log.info(
                "%s of %s items are followed by more than %d others (`kept`): their rarest transitions are left out",
                f"{cut:,}", f"{self.items:,}", self.kept,
            )  # fmt: skip
        self._fill("followers", "counts", _largest(matrix, self.kept))
        if neighbours is not None:
            lent = borrowed(matrix, neighbours, self.kept)
            self.lends.copy_(torch.from_numpy((np.diff(lent.indptr) > 0).astype(np.float32)))
            self._fill("near", "shares", lent)

    def _fill(self, items: str, numbers: str, matrix: sparse.csr_matrix[np.float32]) -> None:
        for name, value in zip((items, numbers), _padded(matrix, self.kept), strict=True):
            getattr(self, name).copy_(value)

    def add_items(self, count: int) -> None:
        """Put items behind the others; nothing follows them yet, and they follow nothing."""
        for name in self.ROWS:
            rows = getattr(self, name)
            setattr(self, name, torch.cat([rows, rows.new_zeros(count, *rows.shape[1:])]))

    def forward(self, last: Tensor, strength: float, width: int) -> Tensor:
        """(batch, width) shares of transitions from items (batch,) to each item, column 0 the padding; all above 0.

        (transitions + strength x shares of the similar items' + smoothing / items) / what these sum to.
        """
        seen = self.counts.new_zeros(len(last), width)
        seen.scatter_add_(1, self.followers[last].long(), self.counts[last])
        of_all = self.totals[last] + self.smoothing
        if strength and self.borrows:
            seen.scatter_add_(1, self.near[last].long(), strength * self.shares[last])
            of_all = of_all + strength * self.lends[last]
        return (seen + self.smoothing / self.items) / of_all[:, None]
