"""Principal directions of vectors, from their covariance: rows are read in blocks, and no copy of them is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]

_ROWS = 8192
"""Rows in 64 bits at a time."""


def centred_blocks(vectors: Vectors, mean: Floats) -> Iterator[tuple[slice, Floats]]:
    """(which rows, those rows less the mean in 64 bits), a block of vectors (n, width) after the other."""
    for start in range(0, len(vectors), _ROWS):
        block = slice(start, start + _ROWS)
        yield block, np.subtract(vectors[block], mean, dtype=np.float64)


def scatter(vectors: Vectors, mean: Floats) -> Floats:
    """(width, width) sums of products of the columns of vectors (n, width) less the mean (width,)."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for _, rows in centred_blocks(vectors, mean):
        total += rows.T @ rows
    return total


def principal_directions(vectors: Vectors, mean: Floats) -> tuple[Floats, Floats]:
    """Directions of most variance of vectors (n, width) about their mean, as many as n - 1 and width allow.

    The signs are fixed (the largest weight of a direction is positive), so that the same vectors always give the same.
    Directions that hold less than some 1e-15 of the variance of the first are those of rounding.

    Args:
        mean: (width,) of the vectors.
    Returns:
        (k, width) directions of length one, and (k,) the sums of squares along them, falling.
    """
    count, width = vectors.shape
    most = max(1, min(width, count - 1))
    if width < count:
        squares, columns = np.linalg.eigh(scatter(vectors, mean))
        directions, squares = columns.T[::-1], np.maximum(squares[::-1], 0.0)
    else:  # no larger than the covariance would be
        _, spread, directions = np.linalg.svd(np.subtract(vectors, mean, dtype=np.float64), full_matrices=False)
        squares = spread**2
    directions = directions[:most]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)
    return directions * signs[:, None], squares[:most]
