"""The vectors that are quantised: item tables as parts, and the scale on which tables are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tessera.artifacts.tables import ArtifactError, read_item_table


@dataclass(frozen=True)
class PartVectors:
    """What one part quantises: an item table, or several side by side."""

    name: str
    """The tables' names, joined by `+`."""
    vectors: NDArray[np.float32]
    """(items + 1, dim) as the tables hold them, zero where absent."""
    present: NDArray[np.bool_]
    """(items + 1,) items that have a row in all tables of the part."""
    widths: tuple[int, ...]
    """Width of every table."""

    def rows(self, items: NDArray[np.int64]) -> PartVectors:
        """The rows of some items."""
        return PartVectors(self.name, self.vectors[items], self.present[items], self.widths)


def read_parts(tables: Mapping[str, Path], count: int, together: bool) -> list[PartVectors]:
    """Read item tables in the order in which they are named.

    Args:
        tables: name -> file.
        count: items of the catalogue.
        together: all tables side by side in one part, of the items that have a row in each; otherwise a part a table.
    Raises:
        ArtifactError: a file is no item table of this catalogue, holds NaN or infinity, or the same vector everywhere;
            or tables side by side have hardly an item in common.
    """
    parts = []
    for name, path in tables.items():
        vectors, present = read_item_table(path, count)
        if not present.any():
            raise ArtifactError(f"{path}: has no row; nothing to quantise")
        _refuse_alike(path, vectors[present], "every item has")
        parts.append(PartVectors(name, vectors, present, (vectors.shape[1],)))
    if not together or len(parts) == 1:
        return parts
    present = np.logical_and.reduce([part.present for part in parts])
    if present.sum() < 2:
        counts = ", ".join(f"{part.name} has {int(part.present.sum()):,}" for part in parts)
        raise ArtifactError(
            f"semantic IDs of {'+'.join(tables)}: items in common of tables side by side: {present.sum()} ({counts}); "
            "expected 2 or more"
        )
    joined = np.concatenate([part.vectors for part in parts], 1)
    joined[~present] = 0.0
    widths = tuple(width for part in parts for width in part.widths)
    return [PartVectors("+".join(tables), joined, present, widths)]


def refuse_alike(parts: Sequence[PartVectors], tables: Mapping[str, Path], fitting: NDArray[np.bool_]) -> None:
    """Refuse tables that say the same of all items that a quantiser is fitted to.

    Args:
        parts: what `read_parts` made of the tables.
        tables: name -> file.
        fitting: (items + 1,) items that are fitted to, of those that a part has.
    Raises:
        ArtifactError: so it is.
    """
    paths = iter(tables.values())
    for part in parts:
        rows = part.vectors[part.present & fitting]
        for table in np.split(rows, np.cumsum(part.widths)[:-1], axis=1):
            _refuse_alike(next(paths), table, f"all {len(rows):,} items that codes are fitted to have")


def _refuse_alike(path: Path, rows: NDArray[np.float32], who: str) -> None:
    if (rows == rows[0]).all():
        raise ArtifactError(f"{path}: {who} the same vector; nothing to quantise")


@dataclass(frozen=True)
class Standard:
    """Vectors less their mean, over their scale."""

    mean: Tensor
    """(dim,)"""
    scale: Tensor
    """(dim,) the same number for all columns of a table: directions within it keep their weight."""

    def apply(self, vectors: Tensor) -> Tensor:
        """(n, dim) of a table -> (n, dim) on the common scale."""
        return (vectors - self.mean) / self.scale

    def undo(self, vectors: Tensor) -> Tensor:
        """(n, dim) on the common scale -> (n, dim) of a table."""
        return vectors * self.scale + self.mean

    def cpu(self) -> Standard:
        """The same on the CPU."""
        return Standard(self.mean.cpu(), self.scale.cpu())


def standard(vectors: Tensor, widths: Sequence[int]) -> Standard:
    """The scale on which all tables have the same total variance, and their entries mean square one together.

    Args:
        vectors: (n, sum of widths) tables side by side.
        widths: of every table.
    """
    mean = vectors.mean(0, dtype=torch.float64)
    variance = (vectors.double() - mean).square().mean(0)
    share = vectors.shape[1] / len(widths)
    tables = torch.split(variance, list(widths))
    scales = torch.cat([(table.sum() / share).sqrt().expand(len(table)) for table in tables]).float()
    return Standard(mean.float(), torch.where(scales > 0, scales, 1.0))
