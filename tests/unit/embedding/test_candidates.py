"""Candidates of CRRL: who is right for an item, and what it is ranked among."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tessera.data.dataset import HISTORY, TEST, TRAIN, VALID, Dataset
from tessera.embedding.cooccurrence import Candidates, _largest, build_candidates
from tessera.embedding.crrl_published import all_histories
from tessera.settings.recipes.crrl import CRRLTable


def dataset(histories: list[list[int]], n_items: int, held_out: int = 2) -> Dataset:
    """The last items of every history are held out: validation, then test."""
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    codes = {0: [], 1: [TEST], 2: [VALID, TEST]}[held_out]
    split = [code for h in histories for code in [TRAIN] * (len(h) - held_out) + codes]
    items = np.array([item for h in histories for item in h], np.int32)
    stamps = np.zeros(len(items), np.int64)
    return Dataset(len(histories), n_items, offsets, items, stamps, np.array(split, np.uint8))


def random_histories(users: int, n_items: int, length: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    chance = 1 / np.arange(1, n_items + 1)
    chance /= chance.sum()
    return [list(1 + generator.choice(n_items, length, p=chance)) for _ in range(users)]


def settings(**given: object) -> CRRLTable:
    return CRRLTable(model="m", **{"candidates": 5, **given})  # type: ignore[arg-type]


def test_positives_are_the_most_frequent_pairs_of_the_training_histories() -> None:
    histories = random_histories(40, 30, 9)
    described = np.delete(np.arange(1, 31), [3, 7])  # two items without a text
    found = build_candidates(dataset(histories, 30), described, settings(positives=3))
    pairs = np.zeros((31, 31), np.int64)
    for history in histories:
        for a, b in combinations(history[:-2], 2):
            if a != b:
                pairs[a, b] += 1
                pairs[b, a] += 1
    pairs[:, np.setdiff1d(np.arange(31), described)] = 0
    trained = {item for h in histories for item in h[:-2]} & set(described)
    assert set(found.anchors) <= trained
    for anchor, positives, weights in zip(found.anchors, found.positives, found.weights, strict=True):
        best = sorted((item for item in range(31) if pairs[anchor, item]), key=lambda i: (-pairs[anchor, i], i))[:3]
        assert list(positives) == best + [0] * (3 - len(best))
        shares = pairs[anchor, best] / pairs[anchor, best].sum()
        np.testing.assert_allclose(weights[: len(best)], shares)
        assert not weights[len(best) :].any()


def test_held_out_interactions_change_nothing() -> None:
    histories = random_histories(40, 30, 8)
    others = [[*h[:-2], *(31 - np.array(h[-2:]))] for h in histories]
    described = np.arange(1, 31)
    for published, same in ((False, True), (True, False)):
        drawn = []
        for given in (histories, others):
            data = dataset(given, 30)
            found = build_candidates(data, described, settings(), all_histories(data) if published else None)
            drawn.append(found.draw(np.arange(len(found.anchors)), np.random.default_rng(1))[0])
        assert (drawn[0].shape == drawn[1].shape and (drawn[0] == drawn[1]).all()) == same


def test_a_history_row_that_is_not_trained_on_is_not_counted() -> None:
    data = dataset([[1, 2, 3, 4]] * 3 + [[5, 6], [7, 8]], 8, held_out=0)
    late = data.split.copy()
    late[3] = HISTORY
    late[7] = late[11] = HISTORY
    found = build_candidates(
        Dataset(5, 8, data.offsets, data.items, data.timestamps, late), np.arange(1, 9), settings()
    )
    assert 4 not in found.anchors
    assert 4 not in found.eligible


def check_rows(found: Candidates, items: np.ndarray, weights: np.ndarray, positives: int) -> None:
    for anchor, row, weight in zip(found.anchors, items, weights, strict=True):
        right = int((weight > 0).sum())
        assert 1 <= right <= positives
        assert (weight[:right] > 0).all()
        assert weight.sum() == pytest.approx(1)
        assert anchor not in row
        assert len(set(row)) == len(row)
        assert set(row) <= set(found.eligible)
        met = found.counts[anchor].toarray().ravel()[row] > 0
        assert met[:right].all()


def test_negatives_never_cooccur_while_there_are_enough() -> None:
    histories = random_histories(60, 300, 5)
    found = build_candidates(dataset(histories, 300), np.arange(1, 301), settings(positives=2))
    items, weights = found.draw(np.arange(len(found.anchors)), np.random.default_rng(1))
    check_rows(found, items, weights, 2)
    for anchor, row, weight in zip(found.anchors, items, weights, strict=True):
        assert not found.counts[anchor].toarray().ravel()[row[weight == 0]].any()
    again, _ = found.draw(np.arange(len(found.anchors)), np.random.default_rng(1))
    other, _ = found.draw(np.arange(len(found.anchors)), np.random.default_rng(2))
    assert (items == again).all()
    assert (items != other).any()


def test_where_almost_all_cooccur_the_least_bad_fill_up() -> None:
    everything = [[*range(1, 8)]] * 2 + [[8, 9]]
    found = build_candidates(dataset(everything, 9, held_out=0), np.arange(1, 10), settings(candidates=6))
    items, weights = found.draw(np.arange(len(found.anchors)), np.random.default_rng(1))
    check_rows(found, items, weights, 1)
    for anchor, row in zip(found.anchors, items, strict=True):
        if anchor <= 7:  # 8 and 9 are the only ones that it never meets: both are there
            assert {8, 9} <= set(row)


def test_hard_negatives_are_the_most_alike_that_never_cooccur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.embedding.cooccurrence._BLOCK", 7)
    for histories, n_items in ((random_histories(60, 80, 5), 80), ([[*range(1, 8)]] * 2 + [[8, 9, 1, 2]], 9)):
        found = build_candidates(dataset(histories, n_items), np.arange(1, n_items + 1), settings(positives=2))
        vectors = np.random.default_rng(0).standard_normal((len(found.eligible), 4)).astype(np.float32)
        vectors[5] = vectors[4]  # a tie
        items, weights = found.nearest(vectors, np.arange(len(found.eligible)))
        check_rows(found, items, weights, 2)
        scaled = found.nearest(vectors * np.float32(2**-60), np.arange(len(found.eligible)))
        np.testing.assert_array_equal(scaled[0], items)  # whatever the table's scale is
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        place = {int(item): row for row, item in enumerate(found.eligible)}
        for anchor, row, weight in zip(found.anchors, items, weights, strict=True):
            right = set(row[weight > 0].tolist())
            met = found.counts[anchor].toarray().ravel() > 0
            others = [item for item in place if item not in right and item != anchor]
            like = {item: float(unit[place[int(anchor)]] @ unit[place[item]]) for item in others}
            best = sorted(others, key=lambda item: (bool(met[item]), -round(like[item], 5), item))
            assert row[weight == 0].tolist() == best[: int((weight == 0).sum())]
            assert row[weight > 0].tolist() == found.positives[found.anchors == anchor][0][: len(right)].tolist()


def test_a_copy_of_an_item_is_no_hard_negative_of_it() -> None:
    """Its vector is that of the item: nothing could rank above it."""
    found = build_candidates(dataset(random_histories(60, 40, 5), 40), np.arange(1, 41), settings(positives=2))
    vectors = np.random.default_rng(0).standard_normal((len(found.eligible), 4)).astype(np.float32)
    place = {int(item): row for row, item in enumerate(found.eligible)}
    anchor = next(item for item in found.anchors if found.counts[item].nnz < 20)
    copy = next(item for item in found.eligible if item != anchor and not found.counts[anchor, item])
    vectors[place[copy]] = vectors[place[anchor]]
    texts = np.arange(len(found.eligible))
    row = found.anchors.tolist().index(anchor)
    assert copy in found.nearest(vectors, texts)[0][row], "by vectors alone it is the nearest"
    texts[place[copy]] = texts[place[anchor]]
    assert copy not in found.nearest(vectors, texts)[0][row]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_largest_are_as_in_a_full_sort(count: int) -> None:
    values = np.random.default_rng(0).integers(-4, 4, (30, 40)).astype(np.float32)  # many ties
    values[values == -4] = -np.inf
    full = np.argsort(-values, axis=1, kind="stable")[:, :count]
    assert _largest(values, count).tolist() == full.tolist()


def test_negatives_are_uniform() -> None:
    found = build_candidates(dataset([[1, 2], [3, 4], [5, 6], [7, 8]], 8, held_out=0), np.arange(1, 9), settings())
    first = np.zeros(3000, np.int64)  # the anchor 1, again and again
    items, _ = found.draw(first, np.random.default_rng(0))
    shares = np.bincount(items[:, 1:].ravel(), minlength=9) / len(items)
    np.testing.assert_allclose(shares[3:], 4 / 6, atol=0.05)
    assert not shares[:3].any()


def test_lonely_items_are_left_out_or_kept_as_published() -> None:
    data = dataset([[1, 2, 3], [4], [5, 6], [7]], 7, held_out=0)
    assert list(build_candidates(data, np.arange(1, 8), settings()).anchors) == [1, 2, 3, 5, 6]
    kept = build_candidates(data, np.arange(1, 8), settings(lonely_items="keep"))
    assert list(kept.anchors) == [1, 2, 3, 4, 5, 6, 7]
    items, weights = kept.draw(np.arange(7), np.random.default_rng(0))
    assert (weights[:, 0] == 1).all()
    assert items[3, 0] != 4


def test_errors_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match="candidates: 5 are asked for each item, but only 4 items"):
        build_candidates(dataset([[1, 2, 3, 4]], 9, held_out=0), np.arange(1, 9), settings())
    with pytest.raises(ValueError, match="nothing to reward"):
        build_candidates(dataset([[i] for i in range(1, 9)], 8, held_out=0), np.arange(1, 9), settings())
