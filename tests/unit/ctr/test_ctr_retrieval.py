"""Retrieval of long histories is that of plain Python scans, ties included, whichever index finds it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ctr_world import ITEMS, make_codes

from tessera.ctr import retrieval
from tessera.ctr.retrieval import Groups, Selected, best, latest, ordered, union
from tessera.ctr.sid_index import UNIT, Prefixes, PrefixIndex
from tessera.ctr.simhash import GroupedHash, SimHash, agreement, count_by_shifts, popcount

RNG = np.random.default_rng(0)


def scan(scores: list[float], k: int, valid: list[bool]) -> list[int]:
    """The k best positions in order of time; of equal scores the latest."""
    order = sorted((p for p in range(len(scores)) if valid[p]), key=lambda p: (-scores[p], -p))
    return sorted(order[:k])


def rows(found: Selected) -> list[list[int]]:
    return [row[valid].tolist() for row, valid in zip(found.positions, found.valid, strict=True)]


@pytest.mark.parametrize("k", [1, 4, 50])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_best_is_a_scan(k: int, dtype: torch.dtype) -> None:
    scores = torch.from_numpy(RNG.integers(-2, 4, (6, 30))).to(dtype)
    valid = torch.from_numpy(RNG.random((6, 30)) < 0.7)
    valid[2] = False
    found = best(scores, k, valid)
    assert found.positions.shape == found.valid.shape == (6, k)
    assert rows(found) == [scan(s.tolist(), k, v.tolist()) for s, v in zip(scores, valid, strict=True)]
    assert not found.valid[2].any()
    mask = found.mask(30)
    assert [torch.nonzero(row)[:, 0].tolist() for row in mask] == rows(found)


@pytest.mark.parametrize("scanned", [0, 1 << 16])
def test_events_of_equal_labels_are_found_as_by_a_scan(scanned: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "SCANNED", scanned)
    for length, labels, k in [(1, 1, 3), (40, 5, 7), (40, 200, 7), (200, 3, 50), (64, 20, 1)]:
        history = torch.from_numpy(RNG.integers(1, labels + 1, length))
        groups = Groups(history)
        scores = torch.from_numpy(RNG.integers(0, 4, (9, len(groups))))
        valid = torch.from_numpy(RNG.random((9, len(groups))) < 0.8)
        at = torch.searchsorted(groups.labels, history)
        expected = best(scores[:, at], k, valid[:, at])
        found = groups.best(scores, k, valid)
        assert rows(found) == rows(expected)
        assert found.positions.shape == expected.positions.shape


def test_latest_and_union() -> None:
    last = latest(torch.tensor([0, 2, 5]), 3)
    assert rows(last) == [[], [0, 1], [2, 3, 4]]
    assert last.valid.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    first = Selected(torch.tensor([[1, 4, 0], [0, 0, 0]]), torch.tensor([[True, True, False], [False] * 3]))
    second = Selected(torch.tensor([[4, 6, 9], [2, 0, 0]]), torch.tensor([[True] * 3, [True, False, False]]))
    assert rows(union(first, second, 10)) == [[1, 4, 6, 9], [2]]


def test_floats_keep_their_order_as_integers() -> None:
    values = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30])])
    numbers = ordered(values)
    order = values.argsort()
    assert (numbers[order].diff()[values[order].diff() > 0] > 0).all()
    assert numbers[1000] == numbers[1001]


@pytest.mark.parametrize("bits", [1, 31, 32, 62])
def test_packed_codes_agree_like_signs(bits: int) -> None:
    torch.manual_seed(bits)
    coder = SimHash(10, bits)
    vectors = torch.randn(50, 10)
    codes, signs = coder(vectors), coder.signs(vectors)
    same = (signs[:, None] == signs[None]).sum(-1)
    assert torch.equal(agreement(codes[:, None], codes[None], bits).long(), same)
    assert torch.equal(coder(vectors * 3.5), codes)  # a sum and a mean hash alike
    assert (coder(torch.zeros(2, 10)) == 0).all()


def test_bits_are_counted_with_and_without_an_instruction() -> None:
    values = torch.from_numpy(RNG.integers(0, 2**62, 1000))
    expected = [int(value).bit_count() for value in values]
    assert popcount(values).tolist() == count_by_shifts(values).tolist() == expected
    assert popcount(values[0]).item() == expected[0]


def test_differing_bits_measure_the_angle() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 16)
    angle = math.acos(torch.cosine_similarity(first, second, dim=0).item())
    same = [agreement(*SimHash(16, 62)(torch.stack([first, second])), 62).item() for _ in range(300)]
    assert np.mean(same) / 62 == pytest.approx(1 - angle / math.pi, abs=0.02)
    hits = []
    for _ in range(300):
        buckets = GroupedHash(16, 48, 3)(torch.stack([first, second]))
        assert buckets.shape == (2, 16)
        assert buckets.max() < 8
        hits.append((buckets[0] == buckets[1]).float().mean().item())
    assert np.mean(hits) == pytest.approx((1 - angle / math.pi) ** 3, abs=0.03)


def common_prefix(one: list[int], other: list[int], weights: list[float], ordered_levels: bool) -> float:
    """The semantic score as it is written down."""
    total = 0.0
    if one[0] < 0 or other[0] < 0:
        return total
    for a, b, weight in zip(one, other, weights, strict=True):
        if a == b:
            total += weight
        elif ordered_levels:
            break
    return total


@pytest.mark.parametrize("ordered_levels", [True, False])
@pytest.mark.parametrize("weights", [None, [0.2, 0.3, 0.5], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
def test_semantic_scores(ordered_levels: bool, weights: list[float] | None) -> None:
    ids = make_codes(ordered=ordered_levels)
    prefixes = Prefixes(ids, weights)
    items = torch.arange(1, ITEMS + 1)
    found = prefixes.score(prefixes.of(items)[None], prefixes.of(items)[:, None])
    parts = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    codes = ids.codes[1:].tolist()
    expected = [[common_prefix(a, b, parts.tolist(), ordered_levels) for b in codes] for a in codes]
    assert np.allclose(found.numpy() / UNIT, expected, atol=1e-5)
    # queries of several events: the sum of the scores with each
    window = torch.from_numpy(RNG.integers(1, ITEMS + 1, (4, 9)))
    counted = torch.from_numpy(RNG.integers(0, 3, (4, 9)))
    mass = prefixes.mass(prefixes.of(items).expand(4, -1, -1), prefixes.of(window), counted)
    each = torch.stack([(found[row - 1] * count[:, None]).sum(0) for row, count in zip(window, counted, strict=True)])
    assert torch.equal(mass, each)


@pytest.mark.parametrize("weights", [None, [0.2, 0.3, 0.5], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
@pytest.mark.parametrize("matches_only", [True, False])
def test_the_prefix_index_finds_what_a_scan_finds(weights: list[float] | None, matches_only: bool) -> None:
    prefixes = Prefixes(make_codes(), weights)
    queries = prefixes.of(torch.arange(1, ITEMS + 1))
    for length in (1, 5, 200):
        events = prefixes.of(torch.from_numpy(RNG.integers(1, ITEMS + 1, length)))
        index = PrefixIndex(prefixes, events)
        scores = prefixes.score(events[None], queries[:, None])
        valid = scores > 0 if matches_only else torch.ones_like(scores, dtype=torch.bool)
        for k in (1, 3, 10, 300):
            assert rows(index.best(queries, k, matches_only)) == rows(best(scores, k, valid))


def test_a_level_that_only_tells_items_apart_is_left_out() -> None:
    ids = make_codes(extra=True)
    assert Prefixes(ids).levels == 2
    assert torch.equal(Prefixes(ids).numbers, Prefixes(make_codes()).numbers[:, :2])


def test_codes_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3, one a level"):
        Prefixes(make_codes(), [1.0])
    with pytest.raises(ValueError, match="no prefixes"):
        PrefixIndex(Prefixes(make_codes(ordered=False)), torch.zeros(4, 3, dtype=torch.int64))
