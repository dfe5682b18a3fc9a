"""Slices of a flat array as a padded matrix."""

from __future__ import annotations

import numpy as np


def padded(items: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(rows, longest) int64: slices of `items` padded on the right with 0; at least one column."""
    columns = np.arange(max(1, int(lengths.max(initial=0))))
    real = columns < lengths[:, None]
    indices = np.where(real, starts[:, None] + columns, 0)
    return np.where(real, items[indices] if len(items) else 0, 0).astype(np.int64)
