"""The index of an export: against brute force in float64, by size, with a bias, the same bits twice."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from tessera.serving.index import (
    LEAST_COMPRESSED,
    Index,
    build,
    item_rows,
    kind_for,
    query_rows,
    recall,
    recalls,
)

DIM = 10


def world(items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of items in groups, as trained ones lie, and of users."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, DIM))
    vectors = centres[rng.integers(40, size=items)] + 0.4 * rng.normal(size=(items, DIM))
    users = centres[rng.integers(40, size=200)] + 0.4 * rng.normal(size=(200, DIM))
    return vectors.astype(np.float32), users.astype(np.float32)


def brute(scores: np.ndarray, k: int) -> list[set[int]]:
    return [set((np.argsort(-row, kind="stable")[:k] + 1).tolist()) for row in scores]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("biased", [False, True])
def test_recall_is_that_of_brute_force(kind: str, biased: bool, tmp_path: Path) -> None:
    vectors, users = world(3000)
    bias = np.random.default_rng(1).normal(size=3000).astype(np.float32) * 3 if biased else None
    made = build(vectors, bias, kind, users)
    made.write(tmp_path / "index.faiss")
    read = faiss.read_index(str(tmp_path / "index.faiss"))
    scores = users.astype(np.float64) @ vectors.T.astype(np.float64) + (0 if bias is None else bias)
    found = read.search(query_rows(users, biased, made.width), 10)[1]
    true = np.mean([len(set(row.tolist()) & wanted) / 10 for row, wanted in zip(found, brute(scores, 10), strict=True)])
    told = recalls(made, vectors, bias, users)
    assert told["recall@10"] == pytest.approx(true, abs=2e-3)
    assert set(told) == {"recall@10", "recall@100"}
    # a graph finds the largest inner products less well where a bias rules them, and says so
    assert told["recall@10"] >= (0.9 if biased else 0.99)
    if kind == "flat":
        assert told == {"recall@10": 1, "recall@100": 1}
        assert true == 1


def test_lists_of_compressed_vectors_say_what_they_lose(tmp_path: Path) -> None:
    vectors, users = world(LEAST_COMPRESSED)
    made = build(vectors, None, "ivf_pq", users)
    scores = users @ vectors.T
    found = made.search(query_rows(users, False, made.width), 10)
    true = np.mean([len(set(row.tolist()) & wanted) / 10 for row, wanted in zip(found, brute(scores, 10), strict=True)])
    told = recalls(made, vectors, None, users)
    assert told["recall@10"] == pytest.approx(true, abs=2e-3)
    assert 0.1 < told["recall@10"] < 1
    assert made.width == 12, "a byte for every four numbers"
    assert made.settings["nprobe"] >= 8
    same_bits(made, build(vectors, None, "ivf_pq", users), tmp_path)


def same_bits(one: Index, other: Index, folder: Path) -> None:
    for name, index in (("a", one), ("b", other)):
        index.write(folder / name)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_an_index_that_finds_others_has_a_recall_of_its_own() -> None:
    """Half of the items are in the index: about half of a list can be found."""
    vectors, users = world(2000)
    half = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    half.add_with_ids(vectors[::2], np.arange(1, 2001, 2))
    share = recall(Index(half, "flat", DIM, {}), item_rows(vectors, None), users, 10)
    there = np.mean([len([item for item in row if item % 2]) / 10 for row in brute(users @ vectors.T, 10)])
    assert share == pytest.approx(there, abs=1e-9)


def test_the_same_bits_twice_and_no_thread_is_left_changed(tmp_path: Path) -> None:
    vectors, users = world(2000)
    before = faiss.omp_get_max_threads()
    same_bits(*(build(vectors, None, "hnsw", users) for _ in range(2)), tmp_path)
    assert faiss.omp_get_max_threads() == before


def test_equal_vectors_are_as_good_as_each_other() -> None:
    vectors = np.ones((50, DIM), np.float32)
    assert recalls(build(vectors, None, "flat", vectors[:3]), vectors, None, vectors[:3]) == {"recall@10": 1}


def test_the_kind_goes_by_the_size() -> None:
    assert [kind_for(items) for items in (1, 100_000, 100_001, 1_000_000, 1_000_001)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf_pq",
    ]  # fmt: skip


def test_what_cannot_be_indexed_is_refused() -> None:
    vectors, users = world(300)
    with pytest.raises(ValueError, match=r"at least 9,984 items, the catalogue has 300; take flat or hnsw"):
        build(vectors, None, "ivf_pq", users)
    vectors[6, 2] = np.nan
    with pytest.raises(ValueError, match="the vector of item 7 is not finite"):
        build(vectors, None, "auto", users)
