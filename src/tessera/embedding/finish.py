"""From pooled states to the rows of a table: principal components, unit length. Later rows go the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tessera.artifacts.logs import log
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError
from tessera.data.directions import unit_rows
from tessera.data.principal import centred_blocks, principal_directions
from tessera.settings.recipes.base import Finish

Vectors = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

_SILENT = 1e-10
"""A component of less variance than this share of the first's tells nothing but rounding."""


@dataclass(frozen=True)
class Components:
    """Principal components, as they were found in the vectors of a table."""

    mean: Floats
    """(width,)"""
    directions: Floats
    """(components, width)"""
    kept: npt.NDArray[np.int64]
    """Which of them are kept."""
    scale: Floats | None
    """(kept,) what each is multiplied by; None leaves them as they are."""

    def of(self, vectors: Vectors) -> Floats:
        """(n, kept) of vectors (n, width)."""
        axes = self.directions[self.kept]
        if self.scale is not None:
            axes = axes * self.scale[:, None]
        components = np.empty((len(vectors), len(axes)))
        for block, rows in centred_blocks(vectors, self.mean):
            components[block] = rows @ axes.T
        return components


def find_components(vectors: Vectors, count: int, whiten: float = 0.0) -> Components:
    """The directions of most variance of vectors (n, width), `count` or as many as there are.

    Component k is divided by its standard deviation to the power of `whiten`; directions without variance are then left
    out. At 0 and with all components, distances are kept.
    """
    mean: Floats = np.asarray(np.mean(vectors, axis=0, dtype=np.float64))
    directions, variance = principal_directions(vectors, mean)
    directions = directions[:count]
    if variance.sum() > 0:
        log.info("%d components keep %.1f%% of the variance", len(directions), 100 * _share(variance, len(directions)))
    if not whiten:
        return Components(mean, directions, np.arange(len(directions)), None)
    relative = variance[: len(directions)] / max(float(variance[0]), 1e-300)
    informative = relative > _SILENT
    if not informative.any():  # a table has a column even where all items are alike
        return Components(mean, directions, np.arange(1), None)
    return Components(mean, directions, np.flatnonzero(informative), relative[informative] ** (-whiten / 2))


def _share(variance: Floats, count: int) -> float:
    return float(variance[:count].sum() / variance.sum())


def fit(vectors: Vectors, settings: Finish) -> Components | None:
    """What `finish` needs to know of all vectors (items, width) of a table; None where it needs nothing."""
    if settings.pca is None and not settings.whiten:
        return None
    components = find_components(vectors, settings.pca or vectors.shape[1], settings.whiten)
    if settings.pca is not None and settings.pca > (count := len(components.directions)):
        log.info("%d principal components asked for, %d there are", settings.pca, count)
    return components


def finish(vectors: Vectors, settings: Finish, components: Components | None = None) -> npt.NDArray[np.float32]:
    """Rows (items, dim) of a table from vectors (items, width).

    Args:
        vectors: as the model gave them.
        settings: of the table.
        components: what `fit` found in the vectors of the table that these come to; None fits these.
    """
    components = components or fit(vectors, settings)
    rows = np.asarray(vectors, np.float64) if components is None else components.of(vectors)
    if settings.l2:
        rows = unit_rows(rows)
    return rows.astype(np.float32)


def write_components(path: Path, components: Components | None) -> None:
    """Write what was fitted; a file without tensors where nothing was."""
    parts = {} if components is None else {k: v for k, v in vars(components).items() if v is not None}
    write_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()})


def read_components(path: Path) -> Components | None:
    """Read them back.

    Raises:
        ArtifactError: there is no such file: the table was made before it was kept.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: is not there; make the table again, for nothing else can be put beside its rows")
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    return Components(arrays["mean"], arrays["directions"], arrays["kept"], arrays.get("scale")) if arrays else None
