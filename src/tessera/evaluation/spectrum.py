"""How many directions the rows of a table use: its singular values, and three numbers made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.data.principal import scatter

COLLAPSED = 1e-4
"""A direction whose singular value is below this share of the largest counts as dead."""
_ROUNDING = 1e-12
_SHOWN = 256

Floats = NDArray[np.float64]


def singular_values(vectors: np.ndarray, *, centred: bool) -> Floats:
    """(min(n, dim),) singular values of (n, dim), largest first; those that only rounding made are 0.

    Args:
        centred: take the mean row off first; a direction that all rows share would be the largest by far.
    """
    count, dim = vectors.shape
    middle = vectors.mean(0, dtype=np.float64) if centred else np.zeros(dim)
    # the smaller of the two Gram matrices has the same singular values
    if dim <= count:
        gram = scatter(vectors, middle)
    else:
        rows = vectors - middle
        gram = rows @ rows.T
    squares = np.linalg.eigvalsh(gram)[::-1]
    singular: Floats = np.sqrt(np.where(squares > squares.max(initial=0) * _ROUNDING, squares, 0))
    return singular


def information_abundance(singular: Floats) -> float:
    """Sum of the singular values over the largest: 1 for one direction, dim for an even spread (Guo et al., ICML 2024).

    0 where all are 0.
    """
    return float(singular.sum() / singular.max()) if singular.max(initial=0) > 0 else 0.0


def entropy_rank(singular: Floats) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli, EUSIPCO 2007, definition 1); 0 of zeros."""
    positive = singular[singular > 0]
    shares = positive / positive.sum() if len(positive) else positive
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(positive) else 0.0


def collapsed_share(singular: Floats, dim: int) -> float:
    """Share of `dim` directions whose singular value is below `COLLAPSED` of the largest, or is none at all."""
    alive = int((singular >= COLLAPSED * singular.max()).sum()) if singular.max(initial=0) > 0 else 0
    return 1 - alive / dim


def describe_spectrum(vectors: np.ndarray) -> dict[str, Any]:
    """The spectrum of (n, dim) rows, as they are and centred.

    Returns:
        `dim`, and for `raw` and `centred`: `information_abundance`, `effective_rank`, `collapsed`, and `singular`, the
        values as shares of the largest, at most some hundred of them, evenly spaced, with their places from 1.
    """
    description: dict[str, Any] = {"dim": vectors.shape[1]}
    for name, centred in (("raw", False), ("centred", True)):
        singular = singular_values(vectors, centred=centred)
        indices = np.unique(np.linspace(0, len(singular) - 1, min(_SHOWN, len(singular))).round().astype(int))
        largest = singular.max(initial=0) or 1.0
        description[name] = {
            "information_abundance": information_abundance(singular),
            "effective_rank": entropy_rank(singular),
            "collapsed": collapsed_share(singular, vectors.shape[1]),
            "singular": [[int(place) + 1, float(singular[place] / largest)] for place in indices],
        }
    return description
