"""Typical users: of the middles of clusters of what users read, those nearest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


def means(offsets: Longs, items: npt.NDArray[np.integer], vectors: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """(users, dim) mean vector of the items of each history that have one; zero where none has.

    Args:
        offsets: (users + 1,) history u stands in rows offsets[u]:offsets[u + 1].
        items: (rows,)
        vectors: (items + 1, dim), zero where absent.
        present: (items + 1,)
    """
    # a row of ones for each history, in its order: no row of vectors is made for every interaction
    met = sparse.csr_matrix((np.ones(len(items)), items, offsets), shape=(len(offsets) - 1, len(vectors)))
    made: Floats = (met @ vectors.astype(np.float64)) / np.maximum(met @ present.astype(np.float64), 1)[:, None]
    return made


def typical(vectors: Floats, wanted: int, clusters: int, seed: int) -> tuple[Longs, Longs]:
    """Who is nearest to the middles of clusters, about as many of each.

    Args:
        vectors: (users, dim)
        wanted: how many; the last clusters may give one fewer than the first.
        clusters: how many; at most as many as are wanted.
        seed: of the clustering.
    Returns:
        (n,) which users, ascending, and (n,) their clusters.
    """
    from sklearn.cluster import MiniBatchKMeans  # a stage that clusters nothing need not import it

    wanted = min(wanted, len(vectors))
    model = MiniBatchKMeans(min(clusters, wanted), random_state=seed, batch_size=1024, n_init=3)
    distances = model.fit(vectors).transform(vectors)
    owners, own = distances.argmin(1), distances.min(1)
    order = np.lexsort((np.arange(len(own)), own, owners))
    starts = np.searchsorted(owners[order], owners[order])
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - starts  # from 0, the nearest of a cluster
    chosen = np.sort(np.lexsort((own, owners, ranks))[:wanted])  # all first ones, then all second ones, ...
    return chosen, owners[chosen].astype(np.int64)
