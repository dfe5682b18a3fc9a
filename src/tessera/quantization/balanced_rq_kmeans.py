"""Residual k-means with a bound on the largest cluster: rows are given to centres at the least cost that keeps it.

Few rows are assigned exactly (Hungarian method on as many copies of a centre as it has places); more by an auction
(Bertsekas, 1988), which ends within rows x `step` of the least cost. The bound holds either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tessera.quantization.base import Fitted, PartQuantizer, squared_distances, stored_codebooks
from tessera.quantization.kmeans import Clusters, kmeans
from tessera.quantization.rq_kmeans import residual_levels
from tessera.quantization.vectors import PartVectors, Standard, standard
from tessera.settings.quantizers.balanced_rq_kmeans import BalancedRQKMeans

EXACT_ROWS = 600
"""Most rows that are assigned exactly."""
STEP = 0.02
"""Least rise of a price in the auction, as a share of the mean distance to the nearest centre."""
ROUNDS = 5000
"""Rounds of the auction; what is left then takes the nearest free places, by rows."""


def capacity(rows: int, count: int, slack: float) -> int:
    """Most rows of a cluster: ceil(slack x rows / count)."""
    return math.ceil(slack * rows / count - 1e-9)


def bounded_assignment(distances: np.ndarray, most: int) -> np.ndarray:
    """(n,) a column for each row, none taken by more than `most` rows, at about the least sum of distances.

    Args:
        distances: (n, columns).
        most: places of a column.
    Raises:
        ValueError: there are more rows than places.
    """
    rows, columns = distances.shape
    if rows > columns * most:
        raise ValueError(f"{rows} rows do not fit into {columns} clusters of {most}")
    chosen: np.ndarray = distances.argmin(1)
    if np.bincount(chosen, minlength=columns).max(initial=0) > most:
        few = rows <= EXACT_ROWS
        chosen = linear_sum_assignment(np.repeat(distances, most, 1))[1] // most if few else _auction(distances, most)
    return chosen


def _auction(distances: np.ndarray, most: int) -> np.ndarray:
    """Rows without a place bid for the column that suits them best; a column keeps its highest bids."""
    rows, columns = distances.shape
    step = STEP * float(distances.min(1).mean()) + 1e-12
    prices = np.zeros(columns)
    bids = np.zeros(rows)
    owner = np.full(rows, -1)
    for _ in range(ROUNDS):
        waiting = np.flatnonzero(owner < 0)
        if not len(waiting):
            return owner
        cost = distances[waiting] + prices
        best = cost.argmin(1)
        lowest = cost[np.arange(len(waiting)), best]
        cost[np.arange(len(waiting)), best] = np.inf
        # the highest price at which the best column is still as good as the second
        bids[waiting] = prices[best] + (cost.min(1) - lowest if columns > 1 else 0.0) + step
        owner[waiting] = best
        for column in np.unique(best):
            held = np.flatnonzero(owner == column)
            if len(held) > most:
                order = np.argsort(-bids[held], kind="stable")
                owner[held[order[most:]]] = -1
                prices[column] = bids[held[order[most - 1]]]
            elif len(held) == most:
                prices[column] = bids[held].min()
    room = most - np.bincount(owner[owner >= 0], minlength=columns)
    for row in np.flatnonzero(owner < 0):
        owner[row] = np.where(room > 0, distances[row], np.inf).argmin()
        room[owner[row]] -= 1
    return owner


def assign_bounded(vectors: Tensor, centres: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """(n,) a centre for each row within the bound, and (n,) the squared distance to it."""
    distances = squared_distances(vectors, centres).cpu().numpy().astype(np.float64)
    chosen = bounded_assignment(distances, capacity(len(vectors), len(centres), slack))
    own = torch.from_numpy(distances[np.arange(len(chosen)), chosen]).to(vectors)
    return torch.from_numpy(chosen).to(vectors.device), own


class Part(PartQuantizer):
    """Residual codes within the bound at every level, of all rows that are asked for together."""

    together = True

    def __init__(self, scaling: Standard, codebooks: Sequence[Tensor], slack: float) -> None:
        super().__init__(scaling, codebooks)
        self.slack = slack

    def choose(self, latent: Tensor) -> Tensor:
        """(n, dim) -> (n, levels)."""
        chosen = []
        for book in self.codebooks:
            chosen.append(assign_bounded(latent, book, self.slack)[0])
            latent = latent - book[chosen[-1]]
        return torch.stack(chosen, 1)

    @classmethod
    def from_tensors(cls, settings: BalancedRQKMeans, tensors: Mapping[str, Tensor]) -> Part:
        """The inverse of `tensors`."""
        return cls(Standard(tensors["mean"], tensors["scale"]), stored_codebooks(tensors), settings.slack)


def fit(settings: BalancedRQKMeans, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Balanced residual k-means of one part, on the CPU; nothing is kept in `state`."""
    (part,) = data
    vectors = torch.from_numpy(part.vectors)
    scaling = standard(vectors, part.widths)

    def bounded(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        return assign_bounded(rows, centres, settings.slack)

    def cluster(rows: Tensor, size: int, level: int) -> Clusters:
        return kmeans(rows, size, settings.iterations, (settings.seed, level), bounded)

    levels = residual_levels(scaling.apply(vectors), settings.sizes, cluster)
    return Fitted([Part(scaling, levels.codebooks, settings.slack)], levels.history)
