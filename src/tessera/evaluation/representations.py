"""What the vectors of an item table are like, before any recommender has learned from them.

Everything is told of cosines, that is of rows scaled to length one, but for the effective rank. Items without a row are
left out. Co-occurrence is counted in training histories alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from tessera.artifacts.files import file_digest, write_text
from tessera.artifacts.logs import Progress
from tessera.artifacts.tables import describe, read_item_table, read_table
from tessera.data.bazaar.hidden import true_attributes
from tessera.data.cooccurrence import cooccurrence
from tessera.data.dataset import load_dataset
from tessera.data.directions import unit_rows
from tessera.evaluation.groups import item_groups
from tessera.evaluation.nearest import MOST_DENSE, nearest
from tessera.evaluation.probes import describe_probes
from tessera.evaluation.purity import attribute_values
from tessera.evaluation.spectrum import entropy_rank, singular_values
from tessera.settings.evaluation import Evaluation

NEIGHBOURS = 8
PAIRS = 50_000
"""Pairs of items whose cosines and co-occurrences are compared."""
MOST_ANCHORS = 20_000
"""Of larger catalogues, so many items are compared with all others: time is anchors x items."""
MAX_HISTORY = 500
"""Only so many items at the end of a history make pairs: bounds the cost of very active users."""
# cosines of anchors x items held at once
_BLOCK = 2**24

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def effective_rank(vectors: np.ndarray) -> float:
    """The number of dimensions that the rows of (n, dim) use, between 1 and min(n - 1, dim).

    exp of the entropy of the singular values' shares (Roy and Vetterli, EUSIPCO 2007, definition 1), of the centred
    rows, so that a direction which all items share does not count; 0 where all rows are the same.
    """
    return entropy_rank(singular_values(vectors, centred=True))


def _cosines(unit: Floats, anchors: Ints) -> Iterator[tuple[Ints, Floats]]:
    """(anchors of a block, their cosines with all rows), a block after the other."""
    size = max(1, _BLOCK // len(unit))
    for start in range(0, len(anchors), size):
        block = anchors[start : start + size]
        yield block, unit[block] @ unit.T


def neighbours_and_uniformity(unit: Floats, anchors: Ints, count: int) -> tuple[Ints, Floats, float]:
    """The nearest other rows of each anchor, and how evenly the rows lie on the sphere.

    Args:
        unit: (n, dim) rows of length one, n > 1.
        anchors: (m,) rows that are compared with all.
        count: neighbours wanted; fewer where there are fewer rows.
    Returns:
        rows (m, count), nearest first; their cosines; and the uniformity of Wang and Isola (ICML 2020, eq. 3 with
        t = 2): log of the mean of exp(-2 |x - y|^2) over pairs, at most 0 and lower for a more even spread. Of more
        than `MOST_DENSE` rows, `MOST_ANCHORS` make the pairs with the anchors.
    """
    if len(unit) > MOST_DENSE:
        return *nearest(unit, anchors, count), _uniformity(unit, anchors)
    count = min(count, len(unit) - 1)
    rows = np.empty((len(anchors), count), np.int64)
    cosines = np.empty((len(anchors), count), np.float32)
    potential, done = 0.0, 0
    with Progress("cosines", len(anchors), "items") as progress:
        for block, similarities in _cosines(unit, anchors):
            here = np.arange(len(block))
            similarities[here, block] = -np.inf  # an item is not its own neighbour, nor a pair with itself
            potential += float(np.exp(4 * similarities - 4, dtype=np.float32).sum(dtype=np.float64))
            near = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
            values = np.take_along_axis(similarities, near, 1)
            order = np.lexsort((near, -values), axis=1)
            rows[done : done + len(block)] = np.take_along_axis(near, order, 1)
            cosines[done : done + len(block)] = np.take_along_axis(values, order, 1)
            done += len(block)
            progress.update(len(block))
    return rows, cosines, float(np.log(potential / (len(anchors) * (len(unit) - 1))))


def _uniformity(unit: Floats, anchors: Ints) -> float:
    """The uniformity over pairs of an anchor and one of some random rows."""
    some = np.sort(np.random.default_rng(0).choice(len(unit), min(MOST_ANCHORS, len(unit)), replace=False))
    others, potential, pairs = unit[some], 0.0, 0
    size = max(1, _BLOCK // len(some))
    for start in range(0, len(anchors), size):
        block = anchors[start : start + size]
        cosines = unit[block] @ others.T
        own = block[:, None] == some
        cosines[own] = -np.inf
        potential += float(np.exp(4 * cosines - 4, dtype=np.float32).sum(dtype=np.float64))
        pairs += cosines.size - int(own.sum())
    return float(np.log(potential / pairs))


def strongest_pairs(counts: sparse.csr_matrix[np.int64], items: Ints) -> Ints:
    """(pairs, 2) each of `items` with the one of them that it meets most often (the lower id of equals), if any."""
    inside = counts[items][:, items]
    pairs = []
    for place in range(len(items)):
        start, end = inside.indptr[place], inside.indptr[place + 1]
        if end > start:
            pairs.append((items[place], items[inside.indices[start + int(np.argmax(inside.data[start:end]))]]))
    return np.array(pairs, np.int64).reshape(-1, 2)


def pair_cosines(unit: Floats, pairs: Ints) -> Floats:
    """(pairs,) cosines of rows (pairs, 2)."""
    cosines: Floats = np.einsum("pd,pd->p", unit[pairs[:, 0]], unit[pairs[:, 1]])
    return cosines


def sample_pairs(counts: sparse.csr_matrix[np.int64], wanted: int, seed: int = 0) -> Ints:
    """(pairs, 2) item ids: half of them drawn from the pairs that co-occur, half from all pairs; the same for every
    table of a dataset."""
    rng = np.random.default_rng(seed)
    upper = sparse.triu(counts, k=1).tocoo()
    chosen = rng.choice(upper.nnz, min(wanted // 2, upper.nnz), replace=False)
    met = np.stack([upper.row[chosen], upper.col[chosen]], 1).astype(np.int64)
    count = counts.shape[0] - 1
    if count < 2:
        return met
    first = rng.integers(1, count + 1, wanted - wanted // 2)
    second = (first + rng.integers(1, count, len(first)) - 1) % count + 1  # never the item itself
    return np.concatenate([met, np.stack([first, second], 1)])


def agreement(unit: Floats, counts: sparse.csr_matrix[np.int64], pairs: Ints) -> float | None:
    """Kendall's tau-b between the cosine and the co-occurrence of pairs (pairs, 2); None where either is constant.

    Args:
        unit: (items + 1, dim) rows of length one, by item id.
    """
    if not len(pairs):
        return None
    met = np.asarray(counts[pairs[:, 0], pairs[:, 1]]).ravel()
    tau = float(stats.kendalltau(pair_cosines(unit, pairs), met).statistic)
    return None if np.isnan(tau) else tau


def by_popularity(unit: Floats, present: NDArray[np.bool_], popularity: np.ndarray) -> list[dict[str, Any]]:
    """How items of like popularity lie to each other and to all.

    Args:
        unit: (items + 1, dim) rows of length one, by item id.
        present: (items + 1,) which of them the table has.
        popularity: (items + 1,) training interactions an item.
    Returns:
        a dict a bin, the most popular items first (bins of equal shares of the interactions): `bin`, `items`,
        `mean_cosine` over pairs inside it, and `cosine_to_mean`, the mean cosine to the mean of all rows.
    """
    mean = unit[present].mean(0, dtype=np.float64)
    direction = mean / max(float(np.linalg.norm(mean)), 1e-12)
    bins = []
    for name, members in item_groups(popularity, Evaluation())["popularity_bins"].items():
        rows = unit[members & present].astype(np.float64)
        bins.append(
            {
                "bin": name,
                "items": len(rows),
                "mean_cosine": _mean_cosine(rows),
                "cosine_to_mean": float((rows @ direction).mean()) if len(rows) else None,
            }
        )
    return bins


def _mean_cosine(rows: np.ndarray) -> float | None:
    """Mean over pairs of different rows: the squared length of their sum holds every pair, and each row with itself."""
    n = len(rows)
    total = rows.sum(0, dtype=np.float64)
    own = np.square(rows, dtype=np.float64).sum()
    return float((total @ total - own) / (n * (n - 1))) if n > 1 else None


def describe_table(
    vectors: np.ndarray,
    present: NDArray[np.bool_],
    counts: sparse.csr_matrix[np.int64],
    popularity: np.ndarray,
) -> dict[str, Any]:
    """All diagnostics of a table.

    Args:
        vectors: (items + 1, dim) by item id; row 0 is the padding.
        present: (items + 1,) which items have a row.
        counts: (items + 1, items + 1) co-occurrences in training histories.
        popularity: (items + 1,) training interactions an item.
    """
    items = np.flatnonzero(present)
    description: dict[str, Any] = {"items": len(items), "catalogue": len(present) - 1, "dim": vectors.shape[1]}
    if len(items) < 2:
        return {**description, "neighbours": {}}
    unit = unit_rows(vectors.astype(np.float64)).astype(np.float32)
    anchors = np.arange(len(items))
    if len(items) > MOST_ANCHORS:
        anchors = np.sort(np.random.default_rng(0).choice(len(items), MOST_ANCHORS, replace=False))
    rows, cosines, uniformity = neighbours_and_uniformity(unit[items], anchors, NEIGHBOURS)
    strongest = strongest_pairs(counts, items)
    pairs = sample_pairs(counts, PAIRS)
    pairs = pairs[present[pairs].all(1)]
    return {
        **description,
        "uniformity": uniformity,
        "alignment": float((2 - 2 * pair_cosines(unit, strongest)).mean()) if len(strongest) else None,
        "alignment_pairs": len(strongest),
        "effective_rank": effective_rank(vectors[items]),
        "kendall_tau": agreement(unit, counts, pairs),
        "kendall_pairs": len(pairs),
        "mean_cosine": _mean_cosine(unit[items]),
        "popularity": by_popularity(unit, present, popularity),
        "neighbours": {
            str(items[anchor]): [[int(items[row]), round(float(value), 4)] for row, value in zip(*near, strict=True)]
            for anchor, *near in zip(anchors, rows, cosines, strict=True)
        },
    }


def _probes(
    vectors: np.ndarray, present: NDArray[np.bool_], table: Path, data: Path, latents: Path | None
) -> dict[str, Any]:
    """What the vectors know of the items' attributes, and, of a generated world, of those that it hides."""
    items = read_table(data / "items.parquet", "items", ["item", "raw_id", "attributes"]).sort_by("item")
    raw_ids = items.column("raw_id").to_pylist()
    probes, unprobed = describe_probes(vectors, present, raw_ids, attribute_values(items))
    described: dict[str, Any] = {"probes": probes, "unprobed": unprobed}
    if latents is not None:
        truth = {name: values for name, values in true_attributes(latents, raw_ids).items() if name not in probes}
        hidden, _ = describe_probes(vectors, present, raw_ids, truth)
        described["hidden_probes"] = hidden
        described["unprobed"] = [name for name in unprobed if name not in hidden]
        # a table that was made of the truth itself shows what can be had
        described["bound"] = (describe(table).get("inputs") or {}).get("source") == file_digest(latents)
    return described


def diagnose(table: Path, data: Path, output: Path, latents: Path | None = None) -> None:
    """Write the diagnostics of an item table as JSON, a line for each of them.

    Args:
        latents: the true attributes of a generated world, which are probed too.
    Raises:
        ArtifactError: the table is none, or of another catalogue.
    """
    dataset = load_dataset(data)
    vectors, present = read_item_table(table, dataset.n_items)
    counts = cooccurrence(*dataset.train_histories(), dataset.n_items, MAX_HISTORY)
    diagnostics = describe_table(vectors, present, counts, dataset.train_counts)
    diagnostics |= _probes(vectors, present, table, data, latents)
    lines = [f"  {json.dumps(key)}: {json.dumps(diagnostics[key], allow_nan=False)}" for key in sorted(diagnostics)]
    write_text(output, "{\n" + ",\n".join(lines) + "\n}\n")
