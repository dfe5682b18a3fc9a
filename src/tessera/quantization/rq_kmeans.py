"""Residual k-means: clusters of the vectors, then of what their centres leave over, level after level; no encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.quantization.base import Fitted, PartQuantizer, nearest, stored_codebooks
from tessera.quantization.kmeans import Clusters, assign, kmeans
from tessera.quantization.vectors import PartVectors, Standard, standard
from tessera.settings.quantizers.rq_kmeans import RQKMeans
from tessera.training.machine import pick_device

Cluster = Callable[[Tensor, int, int], Clusters]
"""k-means of (n, dim) vectors into so many clusters, at a level."""


@dataclass(frozen=True)
class Levels:
    """Codebooks level after level."""

    codebooks: list[Tensor]
    """(codes, dim) a level; of unit residuals times `scales`, where residuals were scaled."""
    scales: Tensor
    """(levels,) the product of the mean lengths of the residuals so far; ones where they were not scaled."""
    history: list[dict[str, Any]]
    """A row a level."""


def residual_levels(vectors: Tensor, sizes: Sequence[int], cluster: Cluster, unit: bool = False) -> Levels:
    """Cluster, subtract, cluster what is left.

    Args:
        vectors: (n, dim).
        sizes: codes, a level each.
        cluster: k-means of one level.
        unit: scale residuals to length one before each level.
    """
    codebooks, history = [], []
    scale = vectors.new_ones(())
    scales = []
    for level, size in enumerate(sizes):
        if unit:
            # where every item is a code already, nothing is left to scale: a scale of 0 would divide by itself
            length = vectors.norm(dim=1).mean()
            scale = scale * torch.where(length > 1e-12, length, 1.0)
            vectors = unit_rows(vectors)
        clusters = cluster(vectors, size, level)
        left = clusters.error / max(float(vectors.square().sum(1).mean()), 1e-30)
        vectors = vectors - clusters.centres[clusters.assigned]
        codebooks.append(clusters.centres * scale)
        scales.append(scale)
        history.append({"level": level + 1, "iterations": clusters.iterations, "error": clusters.error, "left": left})
        log.info("level %d: %d iterations leave %.1f %% of the squares", level + 1, clusters.iterations, 100 * left)
    return Levels(codebooks, torch.stack(scales), history)


def faiss_kmeans(vectors: Tensor, count: int, iterations: int, seed: int) -> Clusters:
    """k-means by faiss, all rows in every iteration.

    Raises:
        ValueError: faiss is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ValueError(
            "engine: faiss is not installed; pip install faiss-cpu -c constraints.txt, or engine: torch"
        ) from None
    sample = {"min_points_per_centroid": 1, "max_points_per_centroid": 2**31 - 1}
    clustering = faiss.Kmeans(vectors.shape[1], count, niter=iterations, seed=seed, **sample)
    clustering.train(vectors.cpu().numpy())
    centres = torch.from_numpy(clustering.centroids).to(vectors.device)
    chosen, distances = assign(vectors, centres)
    return Clusters(centres, chosen, float(distances.mean()), iterations)


class Part(PartQuantizer):
    """Residual codes; with `scales`, residuals have length one before each level.

    Unit residuals leave their lengths out of the codes. A level's codebook is stored times the mean lengths of the
    residuals up to this level, so that sums of code vectors still reconstruct, as well as mean lengths can.
    """

    def __init__(self, scaling: Standard, codebooks: Sequence[Tensor], scales: Tensor | None = None) -> None:
        """
        Args:
            scaling: to the standardised table.
            codebooks: (codes, dim) a level.
            scales: (levels,) what codebooks of unit residuals were multiplied by; None without `normalize_residuals`.
        """
        super().__init__(scaling, codebooks)
        self.scales = scales

    def _unit(self, level: int) -> Tensor:
        return self.codebooks[level] if self.scales is None else self.codebooks[level] / self.scales[level]

    def _shorten(self, residual: Tensor) -> Tensor:
        return residual if self.scales is None else unit_rows(residual)

    def choose(self, latent: Tensor) -> Tensor:
        """(n, dim) -> (n, levels)."""
        chosen = []
        for level in range(len(self.codebooks)):
            latent, book = self._shorten(latent), self._unit(level)
            chosen.append(nearest(latent, book))
            latent = latent - book[chosen[-1]]
        return torch.stack(chosen, 1)

    def last(self, latent: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The residuals of the last level, of length one if so set, and its codes."""
        for level in range(len(self.codebooks) - 1):
            latent = self._shorten(latent) - self._unit(level)[codes[:, level]]
        return self._shorten(latent), self._unit(len(self.codebooks) - 1)

    def tensors(self) -> dict[str, Tensor]:
        """Everything under its name."""
        return super().tensors() | ({} if self.scales is None else {"scales": self.scales})

    @classmethod
    def from_tensors(cls, settings: RQKMeans, tensors: Mapping[str, Tensor]) -> Part:
        """The inverse of `tensors`."""
        return cls(Standard(tensors["mean"], tensors["scale"]), stored_codebooks(tensors), tensors.get("scales"))


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows of length one; a row of zeros stays."""
    return F.normalize(vectors, dim=1, eps=1e-12)


def fit(settings: RQKMeans, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Residual k-means of one part; nothing is kept in `state`."""
    (part,) = data
    device = pick_device("auto" if settings.engine == "torch" else "cpu")
    vectors = torch.from_numpy(part.vectors).to(device)
    scaling = standard(vectors, part.widths)

    def cluster(rows: Tensor, size: int, level: int) -> Clusters:
        if settings.engine == "faiss":
            return faiss_kmeans(rows, size, settings.iterations, settings.seed + level)
        return kmeans(rows, size, settings.iterations, (settings.seed, level))

    levels = residual_levels(scaling.apply(vectors), settings.sizes, cluster, settings.normalize_residuals)
    scales = levels.scales.cpu() if settings.normalize_residuals else None
    return Fitted([Part(scaling.cpu(), [book.cpu() for book in levels.codebooks], scales)], levels.history)
