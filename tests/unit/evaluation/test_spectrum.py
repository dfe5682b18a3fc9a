"""Spectra of tables whose singular values are known."""

from __future__ import annotations

import numpy as np
import pytest

from tessera.evaluation.spectrum import (
    collapsed_share,
    describe_spectrum,
    entropy_rank,
    information_abundance,
    singular_values,
)


@pytest.mark.parametrize("dim", [1, 5, 40])
def test_an_even_spread_uses_every_direction(dim: int) -> None:
    singular = singular_values(np.eye(dim), centred=False)
    assert information_abundance(singular) == pytest.approx(dim)
    assert entropy_rank(singular) == pytest.approx(dim)
    assert collapsed_share(singular, dim) == 0


def test_one_direction_counts_one() -> None:
    rows = np.outer(np.arange(1, 30), np.random.default_rng(0).normal(size=12))
    singular = singular_values(rows, centred=False)
    assert information_abundance(singular) == pytest.approx(1)
    assert entropy_rank(singular) == pytest.approx(1)
    assert collapsed_share(singular, 12) == pytest.approx(11 / 12)


@pytest.mark.parametrize(("items", "dim"), [(50, 8), (8, 50)])
def test_values_are_those_of_the_decomposition(items: int, dim: int) -> None:
    rows = np.random.default_rng(1).normal(size=(items, dim)) + 2
    for centred in (False, True):
        expected = np.linalg.svd(rows - centred * rows.mean(0), compute_uv=False)
        assert np.allclose(singular_values(rows, centred=centred), np.where(expected > 1e-6, expected, 0), atol=1e-6)


def test_a_known_spectrum() -> None:
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0][:, :3] for n in (30, 8))
    singular = singular_values(left @ np.diag([4.0, 2, 1]) @ right.T, centred=False)
    assert singular[:3] == pytest.approx([4, 2, 1])
    assert information_abundance(singular) == pytest.approx(7 / 4)
    shares = np.array([4, 2, 1]) / 7
    assert entropy_rank(singular) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert collapsed_share(singular, 8) == pytest.approx(5 / 8)


def test_a_shared_direction_hides_the_others_until_it_is_taken_off() -> None:
    rows = np.random.default_rng(3).normal(size=(200, 10)) + 100
    found = describe_spectrum(rows)
    assert found["dim"] == 10
    assert found["raw"]["information_abundance"] < 1.6
    assert found["centred"]["information_abundance"] > 8
    assert found["raw"]["singular"][0] == [1, 1.0]
    assert [place for place, _ in found["raw"]["singular"]] == list(range(1, 11))


def test_equal_rows_have_no_spread() -> None:
    found = describe_spectrum(np.ones((5, 4)))
    assert found["centred"]["effective_rank"] == 0
    assert found["centred"]["information_abundance"] == 0
    assert found["centred"]["collapsed"] == 1
    wide = describe_spectrum(np.random.default_rng(0).normal(size=(900, 700)))["raw"]["singular"]
    assert len(wide) <= 256
    assert wide[-1][0] == 700
