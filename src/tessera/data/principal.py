"""Principal directions of vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def principal_directions(centred: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Directions of most variance of centred vectors (n, width), as many as n - 1 and width allow.

    The signs are fixed (the largest weight of a direction is positive), so that the same vectors always give the same.

    Returns:
        (k, width) directions of length one, and (k,) the sums of squares along them, falling.
    """
    most = max(1, min(centred.shape[1], len(centred) - 1))
    # the triangular factor has the same right singular vectors, and is small where vectors are many
    _, spread, directions = np.linalg.svd(np.linalg.qr(centred, mode="r"), full_matrices=False)
    directions = directions[:most]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1.0, 1.0)
    return directions * signs[:, None], spread[:most] ** 2
