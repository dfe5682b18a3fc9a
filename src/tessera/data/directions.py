"""Rows as directions, whatever the scale of their table is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def unit_rows(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows (n, dim) of length one, as exact as they are given; rows of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[Any] = rows / np.where(lengths == 0, 1, lengths)
    return unit
