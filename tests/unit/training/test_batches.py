import itertools
from collections import Counter

import numpy as np
import pytest

from tessera.training.batches import PrefixBatches, SingleTargetBatches, WindowBatches, windows


def make(seed=0, users=60):
    rng = np.random.default_rng(seed)
    lengths = rng.choice([0, 1, 2, 3, 5, 11, 12, 40, 137], users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # every item is its own row number: a pair of neighbours identifies a target
    return offsets, np.arange(1, offsets[-1] + 1, dtype=np.int32)


@pytest.mark.parametrize("size", [2, 3, 12, 51])
def test_no_target_is_lost_and_none_is_doubled(size):
    offsets, items = make()
    batches = WindowBatches(offsets, items, size, 1, tokens=100)
    seen = Counter()
    for batch in batches.epoch(seed=1, epoch=0):
        for row in batch.items.numpy():
            row = row[row > 0]
            assert len(row) <= size
            seen.update(itertools.pairwise(row))
    inner = [(i, i + 1) for a, b in itertools.pairwise(offsets) for i in range(a + 1, b)]
    assert seen == Counter(inner)
    assert batches.targets == len(inner)


def test_without_overlap_every_item_is_in_one_window():
    offsets, items = make()
    starts, lengths = windows(offsets, 12, 0)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
    assert sorted(covered) == list(range(len(items)))


def test_the_latest_window_is_full():
    starts, lengths = windows(np.array([0, 25]), 10, 1)
    assert starts[0] + lengths[0] == 25
    assert lengths.tolist() == [10, 10, 7]


def test_batches_keep_their_budget_and_waste_little():
    offsets, items = make(users=5000)
    batches = WindowBatches(offsets, items, 51, 1, tokens=2000)
    shapes = [batch.items.shape for batch in batches.epoch(0, 0)]
    assert all(rows * columns <= 2000 for rows, columns in shapes)
    assert sum(batches.lengths) / sum(r * c for r, c in shapes) > 0.9


@pytest.mark.parametrize("prefixes", [True, False])
def test_every_single_target_counts_the_same_whatever_stands_before_it(prefixes):
    """A step is the mean over its targets, so that all steps must have as many."""
    lengths = np.minimum(np.random.default_rng(0).geometric(0.08, 4000) + 2, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.ones(offsets[-1], np.int32)
    one = PrefixBatches(offsets, items, 50, 4000) if prefixes else SingleTargetBatches(offsets, items, 51, 1, 4000)
    plan = one.plan(0, 0)
    sizes = np.array([len(numbers) for numbers in plan])
    assert sizes.max() <= sizes.min() + 2
    weights = np.zeros(len(one.starts))
    for numbers in plan:
        weights[numbers] += 1 / len(numbers)
    short, long = weights[one.lengths <= 3], weights[one.lengths >= 40]
    assert short.mean() == pytest.approx(long.mean(), rel=0.01)
    padded = np.array([len(numbers) * one.lengths[numbers].max() for numbers in plan])
    assert padded.mean() == pytest.approx(4000, rel=0.1)
    assert one.lengths.sum() / padded.sum() > 0.9
    assert sorted(np.concatenate(plan)) == list(range(len(one.starts)))


@pytest.mark.parametrize(("histories", "batches"), [([51, 51, 2], 101), ([1, 0], 0)])
def test_a_budget_below_a_target_makes_batches_of_one(histories, batches):
    offsets = np.concatenate([[0], np.cumsum(histories)])
    plan = PrefixBatches(offsets, np.ones(offsets[-1], np.int32), 51, tokens=2).plan(0, 0)
    assert list(map(len, plan)) == [1] * batches


def test_the_order_depends_on_seed_and_epoch_alone():
    offsets, items = make()
    batches = WindowBatches(offsets, items, 12, 1, tokens=100)

    def order(seed, epoch):
        return [batch.items.tolist() for batch in batches.epoch(seed, epoch)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert list(map(len, order(1, 2)[3:])) == [len(b) for b in batches.epoch(1, 2, skip=3)]
