"""k-means by products instead of differences: k-means++ seeds, Lloyd's iterations, no cluster left empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEEDING_ROWS = 12
"""Seeds are drawn among so many random rows a cluster; Lloyd's iterations see all rows."""
TOLERANCE = 1e-6
"""Iterations end when the mean squared distance falls by less than this share."""
ROWS = 16384
"""Most rows whose distances are held at a time."""
CELLS = 2**26
"""Most distances that are held at a time, a quarter of a GiB: fewer rows of many clusters."""


@dataclass(frozen=True)
class Clusters:
    """The result of k-means."""

    centres: Tensor
    """(clusters, dim)"""
    assigned: Tensor
    """(n,) the cluster of each row."""
    error: float
    """Mean squared distance of a row to its centre."""
    iterations: int
    """How many it took."""


def rows_held(count: int) -> int:
    """Rows whose distances to so many clusters are held at a time."""
    return max(1, min(ROWS, CELLS // count))


def assign(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) the nearest centre of each row and (n,) the squared distance to it."""
    chosen, distances = [], []
    sizes = centres.square().sum(1)
    for rows in torch.split(vectors, rows_held(len(centres))):
        best = torch.addmm(sizes, rows, centres.T, beta=-1, alpha=2).max(1)
        chosen.append(best.indices)
        distances.append((rows.square().sum(1) - best.values).clamp(min=0))
    return torch.cat(chosen), torch.cat(distances)


def sums(vectors: Tensor, assigned: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count, dim) sums of the rows of each cluster and (count,) how many they are."""
    counts = torch.bincount(assigned, minlength=count)
    if vectors.device.type == "cpu":
        return vectors.new_zeros(count, vectors.shape[1]).index_add_(0, assigned, vectors), counts
    # a product adds in the same order every time, atomic additions do not
    total = vectors.new_zeros(count, vectors.shape[1])
    held = rows_held(count)
    for rows, chosen in zip(torch.split(vectors, held), torch.split(assigned, held), strict=True):
        total += F.one_hot(chosen, count).to(rows.dtype).T @ rows
    return total, counts


def refill(vectors: Tensor, centres: Tensor, counts: Tensor, distances: Tensor) -> Tensor:
    """Centres of empty clusters moved onto the rows farthest from their own centres, unless these are equal."""
    empty = torch.nonzero(counts == 0)[:, 0]
    if not len(empty):
        return centres
    far = distances.topk(min(len(empty), len(distances)))
    moved = int((far.values > 0).sum())
    return centres.index_copy(0, empty[:moved], vectors[far.indices[:moved]])


def plus_plus(vectors: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """(count, dim) rows by k-means++ (Arthur & Vassilvitskii, 2007): drawn by squared distance to those before."""
    sample = min(len(vectors), SEEDING_ROWS * count)
    if sample < len(vectors):
        chosen = np.sort(rng.choice(len(vectors), sample, replace=False, shuffle=False))
        vectors = vectors[torch.from_numpy(chosen).to(vectors.device)]
    draws = torch.from_numpy(rng.random(count))
    sizes = vectors.square().sum(1)
    left = torch.full_like(sizes, torch.inf)
    seeds = []
    weights = torch.ones_like(sizes, dtype=torch.float64)
    for draw in draws:
        total = weights.cpu().cumsum(0)  # CUDA's running sum of floats differs from run to run
        row = torch.searchsorted(total, (draw * total[-1])[None], right=True).clamp(max=sample - 1).to(vectors.device)
        seed = vectors[row]
        seeds.append(seed)
        left = torch.minimum(left, (sizes + seed.square().sum() - 2 * (vectors @ seed[0])).clamp(min=0))
        left[row] = 0.0  # what rounding leaves of a distance to itself would be drawn again
        weights = left.double()
    return torch.cat(seeds)


Assign = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def kmeans(vectors: Tensor, count: int, iterations: int, seed: Sequence[int], how: Assign = assign) -> Clusters:
    """Cluster rows.

    Args:
        vectors: (n, dim).
        count: clusters.
        iterations: most iterations of Lloyd's algorithm; fewer where nothing moves any more.
        seed: numbers that the first centres are drawn by.
        how: gives rows to centres; another than the nearest where sizes are bounded.
    Raises:
        ValueError: fewer rows than clusters.
    """
    if len(vectors) < count:
        raise ValueError(f"{len(vectors)} vectors cannot make {count} clusters")
    centres = plus_plus(vectors, count, np.random.default_rng(tuple(seed)))
    chosen, distances = how(vectors, centres)
    error, done = float(distances.mean()), 0
    while done < iterations:
        done += 1
        total, counts = sums(vectors, chosen, count)
        # a cluster that stays empty, since no row is apart from its centre, stays where it was
        means = torch.where(counts[:, None] > 0, total / counts.clamp(min=1)[:, None], centres)
        centres = refill(vectors, means, counts, distances)
        again, distances = how(vectors, centres)
        before, error = error, float(distances.mean())
        settled = torch.equal(again, chosen)
        chosen = again
        if settled or abs(before - error) <= TOLERANCE * before:
            break
    return Clusters(centres, chosen, error, done)
