"""Collisions: what each way of dealing with them costs and guarantees, against brute force on small catalogues."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp

from tessera.quantization import conflicts
from tessera.quantization.conflicts import collisions, resolve, strings, transport


def crowded(items: int = 40, sizes: tuple[int, ...] = (3, 2, 9), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Greedy codes with many collisions, and the distances of the items to the last level's codes."""
    rng = np.random.default_rng(seed)
    distances = rng.random((items, sizes[-1])) ** 3
    distances[:, 0] *= 0.2  # most items like the first code best
    prefix = np.stack([np.arange(items) % size for size in sizes[:-1]], 1)
    return np.column_stack([prefix, distances.argmin(1)]), distances


def total(codes: np.ndarray, distances: np.ndarray) -> float:
    return float(distances[np.arange(len(codes)), codes[:, -1]].sum())


def test_strings_are_numbered_in_the_order_of_their_codes() -> None:
    codes = np.array([[2, 0, 5], [0, 9, 1], [2, 0, 5], [0, 8, 7], [10**9, 10**9, 10**9]])
    assert strings(codes).tolist() == [2, 1, 2, 0, 3]
    rng = np.random.default_rng(0)
    many = rng.integers(0, 5, (300, 3))
    _, expected = np.unique(many, axis=0, return_inverse=True)
    assert np.array_equal(strings(many), expected.reshape(-1))
    assert collisions(many) == 300 - len({tuple(row) for row in many.tolist()})
    assert collisions(np.empty((0, 3), np.int64)) == 0


def test_none_counts_and_leaves_all_as_it_is() -> None:
    codes, _ = crowded()
    found = resolve("none", codes, None, (3, 2, 9))
    assert np.array_equal(found.codes, codes)
    assert found.before == found.after == 40 - len({tuple(row) for row in codes.tolist()}) > 0
    assert (found.moved, found.extra, found.sizes) == (0, False, (3, 2, 9))


def test_an_extra_level_counts_within_each_group_in_the_order_of_the_items() -> None:
    codes = np.array([[0, 1], [2, 2], [0, 1], [0, 1], [2, 2], [1, 0]])
    found = resolve("extra_level", codes, None, (3, 3))
    assert found.codes[:, -1].tolist() == [0, 0, 1, 2, 1, 0]
    assert np.array_equal(found.codes[:, :-1], codes)
    assert found.sizes == (3, 3, 3)
    assert (found.before, found.after, found.extra, found.moved) == (3, 0, True, 0)
    alone = resolve("extra_level", codes[[0, 1]], None, (3, 3))
    assert alone.sizes == (3, 3, 1)


@pytest.mark.parametrize("seed", range(6))
def test_nearest_is_the_cheapest_of_all_ways_to_tell_items_apart(seed: int) -> None:
    codes, distances = crowded(10, (2, 1, 6), seed)
    found = resolve("nearest", codes, distances, (2, 1, 6))
    cheapest = 0.0
    for first in range(2):
        rows = np.flatnonzero(codes[:, 0] == first)
        ways = itertools.permutations(range(6), len(rows))
        cheapest += min(float(distances[rows, list(way)].sum()) for way in ways)
    assert total(found.codes, distances) == pytest.approx(cheapest, abs=1e-12)
    assert found.after == collisions(found.codes) == 0
    assert found.before == collisions(codes)
    assert found.moved == int((found.codes != codes).any(1).sum()) > 0
    assert np.array_equal(found.codes[:, :-1], codes[:, :-1])


def test_prefixes_without_a_collision_are_left_alone() -> None:
    # 0 and 1 collide; 2 and 3 do not, although another assignment of theirs would be cheaper
    codes = np.array([[0, 0], [0, 0], [1, 0], [1, 1]])
    distances = np.array([[0.0, 1, 9], [0, 2, 9], [5, 0, 0], [0, 5, 0]])
    for strategy in ("nearest", "sinkhorn"):
        found = resolve(strategy, codes, distances, (2, 3))  # type: ignore[arg-type]
        assert found.codes[2:].tolist() == [[1, 0], [1, 1]]
        assert found.after == 0
    assert resolve("nearest", codes, distances, (2, 3)).codes[:2].tolist() == [[0, 1], [0, 0]]


def test_distances_may_be_made_when_they_are_asked_for() -> None:
    codes, distances = crowded()
    asked: list[int] = []

    def some(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return distances[rows]

    found = resolve("nearest", codes, some, (3, 2, 9))
    assert np.array_equal(found.codes, resolve("nearest", codes, distances, (3, 2, 9)).codes)
    assert len(asked) == len(set(asked)) <= 40


@pytest.mark.parametrize("seed", range(4))
def test_sinkhorn_tells_all_items_apart_and_moves_the_last_code_alone(seed: int) -> None:
    codes, distances = crowded(seed=seed)
    found = resolve("sinkhorn", codes, distances, (3, 2, 9))
    assert found.after == collisions(found.codes) == 0 < found.before
    assert np.array_equal(found.codes[:, :-1], codes[:, :-1])
    assert np.array_equal(resolve("sinkhorn", codes, distances, (3, 2, 9)).codes, found.codes)
    assert total(found.codes, distances) >= total(resolve("nearest", codes, distances, (3, 2, 9)).codes, distances)


def test_copies_do_not_keep_the_transport_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    monkeypatch.setattr(conflicts, "transport", lambda found: rounds.append(1) or transport(found))
    codes = np.zeros((4, 2), np.int64)
    distances = np.tile(np.array([0.0, 3, 1, 2, 9, 8]), (4, 1))
    assert resolve("sinkhorn", codes, distances, (1, 6)).after == 0
    assert len(rounds) == 1


def test_exact_copies_are_told_apart_as_well() -> None:
    codes = np.zeros((5, 2), np.int64)
    distances = np.tile(np.array([0.0, 3, 1, 2, 9, 8]), (5, 1))
    found = resolve("sinkhorn", codes, distances, (1, 6))
    assert sorted(found.codes[:, 1].tolist()) == [0, 1, 2, 3, 5]


def test_transport_is_that_of_plain_numbers_where_they_suffice() -> None:
    distances = np.random.default_rng(0).random((5, 7))
    low, high = distances.min(), distances.max()
    scaled = (distances - (low + high) / 2) / ((high - low) / 2 + 1e-5)
    plain = np.exp(-scaled / 0.5)
    for _ in range(50):
        plain /= plain.sum(1, keepdims=True)
        plain *= 5 / 7 / plain.sum(0, keepdims=True)
    found = transport(distances, epsilon=0.5)
    assert np.allclose(np.exp(found), plain, rtol=1e-10)
    assert np.allclose(np.exp(found).sum(0), 5 / 7)
    assert np.allclose(np.exp(logsumexp(found, axis=1)), 1, atol=1e-6)
    assert np.isfinite(transport(distances)).all(), "the published epsilon needs logarithms"


def test_a_prefix_with_more_items_than_codes_is_named() -> None:
    codes = np.array([[3, 0], [3, 0], [3, 1], [1, 0]])
    for strategy in ("nearest", "sinkhorn"):
        with pytest.raises(ValueError, match=r"3 items share the codes \[3\] before .* 2 codes .* extra_level"):
            resolve(strategy, codes, np.ones((4, 2)), (4, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"3 items have one level, whose 2 codes cannot tell them apart"):
        resolve("nearest", np.zeros((3, 1), np.int64), np.ones((3, 2)), (2,))


def test_distances_are_checked() -> None:
    codes, distances = crowded()
    with pytest.raises(ValueError, match="'nearest' needs distances"):
        resolve("nearest", codes, None, (3, 2, 9))
    distances[7, 3] = np.nan
    with pytest.raises(ValueError, match="row 7 has a distance to a code that is NaN"):
        resolve("nearest", codes, distances, (3, 2, 9))
