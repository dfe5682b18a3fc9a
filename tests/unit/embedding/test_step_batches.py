"""Batches of steps: one bucket of like cost, pairs of one kind, partners as often as histories have them."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from tessera.embedding.step_batches import GROWTH, SHORTEST, CostBuckets, PairBatches, near

ITEMS = np.arange(1, 41, dtype=np.int64)
COSTS = np.random.default_rng(0).integers(10, 120, 41)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_step_is_of_one_bucket_and_divides_among_processes(world: int) -> None:
    buckets = CostBuckets(ITEMS, COSTS[ITEMS], 400, world, 1)
    ends = SHORTEST * GROWTH ** np.arange(20)
    seen = set()
    for step in range(6 * buckets.steps):
        items = buckets(step)
        assert len(items) % world == 0
        assert len(items) == len(set(items.tolist()))
        seen |= set(items.tolist())
        bucket = np.searchsorted(ends, COSTS[items])
        if world == 1:
            assert len(set(bucket.tolist())) == 1
            assert len(items) * COSTS[items].max() <= 400 or len(items) == 1
            assert len(items) <= max(1, int(400 / ends[bucket[0]]))
    assert seen == set(ITEMS.tolist())
    epoch = np.concatenate([buckets(step) for step in range(buckets.steps)])
    assert len(epoch) == len(set(epoch.tolist()))  # nothing twice before all are through
    again = CostBuckets(ITEMS, COSTS[ITEMS], 400, world, 1)
    assert all(again(step).tolist() == buckets(step).tolist() for step in (7, 0, 3))


def test_few_items_of_a_cost_go_with_others() -> None:
    costs = np.array([20, 20, 20, 500, 40])
    buckets = CostBuckets(np.arange(1, 6), costs, 5000, 2, 1)
    seen = {item for step in range(40) for item in buckets(step).tolist()}
    assert seen == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="1 items can be trained on; 2 processes need one each"):
        CostBuckets(np.array([3]), np.array([10]), 100, 2, 1)


def test_near_counts_pairs_within_a_window() -> None:
    offsets, items = np.array([0, 4, 4, 7]), np.array([1, 2, 1, 3, 2, 3, 2])
    counts = near(offsets, items, 5, 2).toarray()
    expected = np.zeros((5, 5), int)
    for start, end in pairwise(offsets):
        for i in range(start, end):
            for j in range(start, end):
                if i != j and abs(i - j) <= 2 and items[i] != items[j]:
                    expected[items[i], items[j]] += 1
    assert counts.tolist() == expected.tolist()
    assert near(offsets, items, 5, 9).toarray()[1, 3] == 2


def test_near_holds_no_more_than_a_few_times_what_it_gives() -> None:
    users = 2000
    items = np.random.default_rng(0).integers(1, users + 1, 10 * users).astype(np.int32)
    tracemalloc.start()
    counts = near(np.arange(0, 10 * users + 1, 10), items, users + 1, 5)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3 * (counts.data.nbytes + counts.indices.nbytes)


def counted(pairs: dict[tuple[int, int], int], size: int = 41) -> sparse.csr_matrix:
    matrix = np.zeros((size, size), np.int64)
    for (a, b), count in pairs.items():
        matrix[a, b] = matrix[b, a] = count
    return sparse.csr_matrix(matrix)


def test_every_step_has_pairs_of_one_kind() -> None:
    counts = counted({(a, a + 1): a for a in range(1, 40)})
    batches = PairBatches(ITEMS, {"views": 1.0, "together": 3.0}, counts, 8, 400, 2, 1)
    kinds = []
    partners: dict[int, list[int]] = {}
    for step in range(400):
        kind, queries, targets, negatives = batches(step)
        kinds.append(kind)
        assert len(set(queries.tolist())) == len(queries) == 8
        assert negatives.shape == (8, 0)
        if kind == "views":
            assert targets.tolist() == queries.tolist()
        else:
            assert all(counts[q, t] > 0 for q, t in zip(queries, targets, strict=True))
            for q, t in zip(queries.tolist(), targets.tolist(), strict=True):
                partners.setdefault(q, []).append(t)
    assert 0.68 < kinds.count("together") / 400 < 0.82
    assert set(partners[20]) == {19, 21}
    few = PairBatches(ITEMS, {"views": 0.0, "together": 1.0}, counted({(5, 6): 1, (5, 7): 9, (6, 7): 1}), 3, 600, 1, 1)
    drawn = [t for step in range(600) for q, t in zip(*few(step)[1:3], strict=True) if q == 5]
    assert len(drawn) == 600
    assert 0.86 < drawn.count(7) / 600 < 0.94
    assert [few(n).targets.tolist() for n in (3, 9)] == [few(n).targets.tolist() for n in (3, 9)]


def test_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs.together: no two items .* give pairs: "):
        PairBatches(ITEMS, {"views": 1.0, "together": 1.0}, counted({}), 8, 10, 1, 1)
    alone = PairBatches(ITEMS, {"views": 1.0, "together": 0.0}, counted({}), 8, 10, 1, 1)
    assert {alone(step).kind for step in range(10)} == {"views"}


def test_negatives_share_an_attribute_and_were_never_near() -> None:
    attributes = {item: [("kind", str(item % 4)), ("title", str(item))] for item in range(1, 40)}  # item 40 has none
    counts = counted({(a, a + 4): 1 for a in range(1, 37)})
    batches = PairBatches(ITEMS, {"views": 0.0, "together": 1.0}, counts, 12, 60, 1, 1, attributes, 3)
    for step in range(60):
        _, queries, _, negatives = batches(step)
        for query, own in zip(queries.tolist(), negatives.tolist(), strict=True):
            kept = [item for item in own if item]
            if query == 40:
                assert kept == []  # and no positive in their place
                continue
            assert len(kept) == len(set(kept)) == 3
            assert all(item % 4 == query % 4 and item != query and counts[query, item] == 0 for item in kept)
