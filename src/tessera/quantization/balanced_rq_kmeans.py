"""Residual k-means with a bound on the largest cluster, kept at about the least cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.quantization.base import Fitted, PartQuantizer, squared_distances, stored_codebooks
from tessera.quantization.bounded import bounded_assignment
from tessera.quantization.kmeans import Clusters, kmeans
from tessera.quantization.rq_kmeans import residual_levels
from tessera.quantization.vectors import PartVectors, Standard, standard
from tessera.settings.quantizers.balanced_rq_kmeans import BalancedRQKMeans


def capacity(rows: int, count: int, slack: float) -> int:
    """Most rows of a cluster: ceil(slack x rows / count)."""
    return math.ceil(slack * rows / count - 1e-9)


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
