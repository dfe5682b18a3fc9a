"""From pooled states to the rows of a table: principal components, unit length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tessera.artifacts.logs import log
from tessera.data.principal import principal_directions
from tessera.settings.recipes.base import Finish

Vectors = npt.NDArray[np.floating]

_SILENT = 1e-10
"""A component of less variance than this share of the first's tells nothing but rounding."""


def finish(vectors: Vectors, settings: Finish) -> npt.NDArray[np.float32]:
    """Rows (items, dim) of a table from vectors (items, width)."""
    found = np.asarray(vectors, np.float64)
    if settings.pca is not None or settings.whiten:
        found = principal_components(found, settings.pca or found.shape[1], settings.whiten)
    if settings.l2:
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found = found / np.where(lengths == 0, 1, lengths)
    return found.astype(np.float32)


def principal_components(vectors: Vectors, count: int, whiten: float = 0.0) -> npt.NDArray[np.float64]:
    """Centred vectors (n, width) in the directions of most variance, (n, count) or as many as there are.

    Component k is divided by its standard deviation to the power of `whiten`; directions without variance are then left
    out. At 0 and with all components, distances are kept.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    directions, variance = principal_directions(centred)
    if count > len(directions):
        log.info("%d principal components asked for, %d there are", count, len(directions))
    directions = directions[:count]
    if variance.sum() > 0:
        log.info("%d components keep %.1f%% of the variance", len(directions), 100 * _share(variance, len(directions)))
    found = centred @ directions.T
    if whiten:
        relative = variance[: len(directions)] / max(float(variance[0]), 1e-300)
        told = relative > _SILENT
        # a table has a column even where all items are alike
        found = found[:, told] * relative[told] ** (-whiten / 2) if told.any() else found[:, :1]
    return np.asarray(found)


def _share(variance: npt.NDArray[np.float64], count: int) -> float:
    return float(variance[:count].sum() / variance.sum())
