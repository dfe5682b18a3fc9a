"""A faiss index of item vectors, and how much of the exact lists it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from tessera.evaluation.nearest import one_thread

Rows = npt.NDArray[np.float32]
Kind = Literal["flat", "hnsw", "ivf_pq"]

MOST_EXACT = 100_000
"""Items that are compared one by one: a list takes a few milliseconds."""
MOST_IN_A_GRAPH = 1_000_000
"""Items whose vectors are kept whole, with a graph of 256 bytes an item."""
CODEBOOK = 256
POINTS = 39
"""Vectors that faiss wants for a centre of its k-means."""
LEAST_COMPRESSED = CODEBOOK * POINTS
ENOUGH = 0.99
"""Of recall@10: where a wider search stops."""
SEED = 1234
DEPTHS = (10, 100)


@dataclass(frozen=True)
class Index:
    """An index over inner products, whose ids are those of the items."""

    faiss_index: Any
    kind: Kind
    width: int
    """Of what it is asked with: a user's vector, a 1 where items have a bias, zeros."""
    settings: dict[str, int]
    """How it was made and is searched."""

    def write(self, path: Path) -> None:
        """As faiss reads it: `faiss.read_index`."""
        faiss.write_index(self.faiss_index, str(path))

    def search(self, queries: Rows, k: int) -> npt.NDArray[np.int64]:
        """(queries, k) item ids, best first; -1 where nothing more was found."""
        with one_thread():
            ids: npt.NDArray[np.int64] = self.faiss_index.search(queries, k)[1]
        return ids


def kind_for(items: int) -> Kind:
    """What suits a catalogue of this size."""
    return "flat" if items <= MOST_EXACT else "hnsw" if items <= MOST_IN_A_GRAPH else "ivf_pq"


def item_rows(vectors: Rows, bias: Rows | None, width: int | None = None) -> Rows:
    """(items, width) what is indexed: vectors (items, dim), the bias as one more column, zeros up to `width`."""
    columns = [vectors] if bias is None else [vectors, bias[:, None]]
    return _wide(np.concatenate(columns, 1), width)


def query_rows(users: Rows, bias: bool, width: int | None = None) -> Rows:
    """(queries, width) what the index is asked with, for vectors of users (queries, dim)."""
    return _wide(np.concatenate([users, np.ones((len(users), 1), np.float32)], 1) if bias else users, width)


def _wide(rows: Rows, width: int | None) -> Rows:
    missing = 0 if width is None else width - rows.shape[1]
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, missing))), np.float32)


def check_kind(kind: str, items: int) -> None:
    """Refuse an index that so few items cannot make.

    Raises:
        ValueError: they are too few for codebooks.
    """
    if kind == "ivf_pq" and items < LEAST_COMPRESSED:
        raise ValueError(
            f"index: ivf_pq learns its codebooks from at least {LEAST_COMPRESSED:,} items, "
            f"the catalogue has {items:,}; take flat or hnsw"
        )


def build(vectors: Rows, bias: Rows | None, kind: Literal["auto", "flat", "hnsw", "ivf_pq"], queries: Rows) -> Index:
    """The index of items 1, 2, ..., of which row i - 1 of `vectors` (items, dim) is item i.

    Args:
        kind: `auto` is by size.
        queries: (queries, dim) vectors of users, by which it is settled how wide is searched.
    Raises:
        ValueError: the items are too few for this kind, or a vector is not finite.
    """
    items = len(vectors)
    chosen = kind_for(items) if kind == "auto" else kind
    check_kind(chosen, items)
    rows = item_rows(vectors, bias)
    if not np.isfinite(rows).all():
        number = int(np.flatnonzero(~np.isfinite(rows).all(1))[0]) + 1
        raise ValueError(f"index: the vector of item {number} is not finite")
    ids = np.arange(1, items + 1, dtype=np.int64)
    with one_thread():
        if chosen == "ivf_pq":
            return _compressed(rows, ids, queries, bias is not None)
        if chosen == "flat":
            exact = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
            exact.add_with_ids(rows, ids)
            return Index(exact, chosen, rows.shape[1], {})
        return _graph(rows, ids, queries, bias is not None)


def _graph(rows: Rows, ids: npt.NDArray[np.int64], queries: Rows, bias: bool) -> Index:
    """A graph of near items over whole vectors."""
    inner = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    inner.hnsw.efConstruction = 200
    outer = faiss.IndexIDMap2(inner)
    outer.add_with_ids(rows, ids)
    made = Index(outer, "hnsw", rows.shape[1], {"M": 32, "efConstruction": 200})
    return _widened(made, rows, query_rows(queries, bias), inner.hnsw, "efSearch", (64, 1024))


def _compressed(rows: Rows, ids: npt.NDArray[np.int64], queries: Rows, bias: bool) -> Index:
    """Lists of product-quantised vectors: a byte for every four numbers."""
    width = -(-rows.shape[1] // 4) * 4
    rows = _wide(rows, width)
    lists = max(1, min(int(4 * len(rows) ** 0.5), len(rows) // POINTS))
    index: Any = faiss.index_factory(width, f"IVF{lists},PQ{width // 4}x8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = SEED
    index.train(rows)
    index.add_with_ids(rows, ids)
    made = Index(index, "ivf_pq", width, {"lists": lists, "bytes": width // 4, "seed": SEED})
    return _widened(made, rows, query_rows(queries, bias, width), index, "nprobe", (min(8, lists), lists))


def _widened(made: Index, rows: Rows, queries: Rows, place: Any, name: str, limits: tuple[int, int]) -> Index:
    """The smallest width of search that finds enough, or beyond which a doubled one finds no hundredth more."""
    width, most = limits
    setattr(place, name, width)
    reached = recall(made, rows, queries, 10)
    while reached < ENOUGH and width < most:
        wider = min(2 * width, most)
        setattr(place, name, wider)
        more = recall(made, rows, queries, 10)
        if more < reached + 0.01:
            setattr(place, name, width)
            break
        width, reached = wider, more
    return Index(made.faiss_index, made.kind, made.width, {**made.settings, name: width})


def recall(index: Index, rows: Rows, queries: Rows, k: int) -> float:
    """The share of exact lists of k items that the index finds; an item of the same score is as good.

    Args:
        rows: (items, width) what is indexed.
        queries: (queries, width) what is asked with.
    """
    k = min(k, len(rows))
    hits = 0
    for start in range(0, len(queries), 64):
        asked = queries[start : start + 64]
        scores = asked @ rows.T
        least = np.partition(scores, -k, axis=1)[:, -k]
        ids = index.search(asked, k)
        own = np.take_along_axis(scores, np.maximum(ids - 1, 0), 1)
        close = 1e-5 * np.abs(scores).max(1)  # sums of another order
        hits += int(((ids > 0) & (own >= (least - close)[:, None])).sum())
    return hits / (len(queries) * k)


def recalls(index: Index, vectors: Rows, bias: Rows | None, users: Rows) -> dict[str, float]:
    """Recall of lists of several lengths, by name."""
    rows = item_rows(vectors, bias, index.width)
    queries = query_rows(users, bias is not None, index.width)
    return {f"recall@{k}": round(recall(index, rows, queries, k), 4) for k in DEPTHS if k <= len(rows)}
