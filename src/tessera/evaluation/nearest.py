"""The nearest rows of large tables, exactly, by faiss: no table of all cosines is made and none is sorted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

MOST_DENSE = 100_000
"""Rows that are compared by a product with all and a partial sort; beyond, faiss does both at once."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@contextmanager
def one_thread() -> Iterator[None]:
    """The same bits on every machine, and no second pool of threads beside torch's."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def nearest(rows: Floats, anchors: Ints, count: int) -> tuple[Ints, Floats]:
    """The rows of largest inner product with each anchor, itself left out.

    Args:
        rows: (n, dim), n > 1.
        anchors: (m,) which of them ask.
        count: rows wanted; fewer where there are fewer.
    Returns:
        (m, count) rows, nearest first, the lower number of equals, and (m, count) their products. Which of equals at
        the very end of a list is taken is not said.
    """
    import faiss  # catalogues of usual size never need it

    rows = np.ascontiguousarray(rows, np.float32)
    count = min(count, len(rows) - 1)
    with one_thread():
        values, ids = faiss.knn(rows[anchors], rows, count + 1, metric=faiss.METRIC_INNER_PRODUCT)
    own = ids == anchors[:, None]
    own[~own.any(1), -1] = True  # so many copies that the anchor is not among them
    ids, values = ids[~own].reshape(len(anchors), count), values[~own].reshape(len(anchors), count)
    order = np.lexsort((ids, -values), axis=1)
    return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)
