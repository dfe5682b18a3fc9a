"""Views with attributes left out: how many, seeded, fresh or the same, and an end for items with one view only."""

from __future__ import annotations

import numpy as np
import pytest

from tessera.embedding.views import two_views, view

SIX = [(f"name{n}", f"value {n}") for n in range(6)]


@pytest.mark.parametrize(("number", "drop", "left"), [(6, 0.4, 4), (5, 0.4, 3), (2, 0.4, 2), (1, 0.9, 1), (3, 0.99, 1)])
def test_a_share_is_left_out(number: int, drop: float, left: int) -> None:
    found = view(SIX[:number], drop, np.random.default_rng(0))
    assert len(found) == len(set(found)) == left
    assert set(found) <= set(SIX[:number])


def test_views_are_seeded_and_differ() -> None:
    assert two_views(SIX, 0.4, 1, 2, 3) == two_views(SIX, 0.4, 1, 2, 3)
    drawn = [two_views(SIX, 0.4, *numbers) for numbers in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]]
    assert len({str(pair) for pair in drawn}) == 4
    assert all(first != second for first, second in (two_views(SIX[:2], 0.4, 1, step, 1) for step in range(50)))


def test_every_attribute_is_left_out_as_often() -> None:
    kept = [name for step in range(3000) for pair in [two_views(SIX, 0.4, 1, step, 1)] for name, _ in pair[0]]
    shares = np.unique(kept, return_counts=True)[1] / 3000
    # 4 of 6 are kept; standard error 0.0086
    np.testing.assert_allclose(shares, 4 / 6, atol=0.04)


def test_one_attribute_ends_with_equal_views() -> None:
    assert two_views(SIX[:1], 0.4, 1, 1, 1) == (SIX[:1], SIX[:1])
    assert two_views([SIX[0], SIX[0]], 0.4, 1, 1, 1)[1] == [SIX[0], SIX[0]]
