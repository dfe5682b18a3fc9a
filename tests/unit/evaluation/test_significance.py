"""Tests of significance against scipy and closed forms."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from tessera.evaluation import significance
from tessera.evaluation.significance import bootstrap, enough_resamples, holm, p_values, randomization, t_test
from tessera.settings.evaluation import Significance


def noisy(users: int, shift: float, seed: int = 0, comparisons: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (users, comparisons))


def test_randomization_enumerates_few_users_exactly() -> None:
    values = noisy(10, 0.6)
    expected = stats.permutation_test(
        (values[:, 0], np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    assert randomization(values, 10_000) == pytest.approx([expected.pvalue], abs=1e-12)


def test_all_differences_alike_have_the_closed_form() -> None:
    # only the two patterns of equal signs are as extreme: 2 / 2^n
    assert randomization(np.full(8, 0.3), 10_000) == pytest.approx([2 / 2**8])


def test_randomization_agrees_with_scipy_on_many_users() -> None:
    values = noisy(200, 0.12, seed=3)
    expected = stats.permutation_test(
        (values[:, 0], np.zeros(200)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    assert randomization(values, 20_000)[0] == pytest.approx(expected.pvalue, abs=0.015)


def test_randomization_of_hits_is_the_sign_test() -> None:
    # differences of one Hit@K are -1, 0 or 1: the sum of signs is binomial over the users that differ
    values = np.concatenate([np.ones(30), -np.ones(14), np.zeros(400)])
    expected = stats.binomtest(30, 44).pvalue
    assert randomization(values, 40_000)[0] == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("test", [randomization, bootstrap])
def test_resampling_is_seeded_and_independent_of_chunks(test, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    values = noisy(64, 0.2, seed=5, comparisons=3)
    first = test(values, 2000, seed=1)
    assert (first == test(values, 2000, seed=1)).all()
    assert (first != test(values, 2000, seed=2)).any()
    monkeypatch.setattr(significance, "_CHUNK_VALUES", 64 * 100)
    assert (first == test(values, 2000, seed=1)).all()


@pytest.mark.parametrize("users", [8, 100])
@pytest.mark.parametrize("test", [randomization, bootstrap])
def test_memory_is_bounded_where_comparisons_are_many(test, users, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    values = noisy(users, 0.2, seed=5, comparisons=500)
    first = test(values, 4000)
    monkeypatch.setattr(significance, "_CHUNK_VALUES", 100_000)
    tracemalloc.start()
    assert (first == test(values, 4000)).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 500 * 8 / 2


def test_bootstrap_and_t_test_agree_for_normal_differences() -> None:
    values = noisy(300, 0.1, seed=7)
    expected = stats.ttest_rel(values[:, 0], np.zeros(300)).pvalue
    assert t_test(values) == pytest.approx([expected], rel=1e-10)
    assert bootstrap(values, 20_000)[0] == pytest.approx(expected, abs=0.02)


def test_under_the_null_p_is_uniform() -> None:
    values = noisy(50, 0.0, seed=11, comparisons=400)
    for p in (randomization(values, 1000), t_test(values)):
        assert stats.kstest(p, "uniform").pvalue > 0.001


def test_no_difference_is_never_significant() -> None:
    zero = np.zeros((40, 2))
    assert (randomization(zero, 500) == 1).all()
    assert (bootstrap(zero, 500) == 1).all()
    assert (t_test(zero) == 1).all()


def test_constant_difference_under_the_t_test() -> None:
    assert t_test(np.full(20, 0.1)) == pytest.approx([0.0])


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


def test_holm_matches_scipy_bonferroni_on_the_smallest_and_is_monotone() -> None:
    p = np.random.default_rng(0).uniform(size=30)
    corrected = holm(p)
    assert corrected.min() == pytest.approx(min(1.0, 30 * p.min()))
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()
    assert (corrected >= p).all()


def test_enough_resamples_lets_the_correction_reach_the_level() -> None:
    settings = Significance(resamples=100, level=0.05)
    resamples = enough_resamples(settings, 200)
    assert 200 / (1 + resamples) <= 0.05
    assert enough_resamples(Significance(), 10) == 10_000
    values = np.full((40, 200), 0.1) + noisy(40, 0.0, comparisons=200) * 1e-3
    assert (holm(p_values(values, settings)) <= 0.05).all()


def test_resampling_p_is_never_zero() -> None:
    assert randomization(np.full(100, 1.0), 99)[0] == pytest.approx(1 / 100)
    assert math.isclose(bootstrap(np.full(100, 1.0), 99)[0], 1 / 100)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="user row 3, comparison 0 is nan"):
        randomization(np.array([0.0, 1.0, 2.0, math.nan]))
    with pytest.raises(ValueError, match="users > 0"):
        bootstrap(np.empty((0, 2)))
    with pytest.raises(ValueError, match="at least 2 users"):
        t_test(np.ones(1))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        holm(np.array([0.5, 1.5]))


def test_the_interval_of_a_relative_gain_is_that_of_scipy() -> None:
    generator = np.random.default_rng(4)
    base = generator.random(300)
    better = 1.1 * base + generator.normal(0, 0.2, 300)
    expected = stats.bootstrap(
        (better, base), lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1, paired=True, method="percentile",
        n_resamples=20_000, vectorized=True, random_state=1,
    ).confidence_interval  # fmt: skip
    made = significance.bootstrap_ratio_interval(better, base, 0.05, 20_000)
    assert made == pytest.approx((expected.low, expected.high), abs=2e-3)


def test_no_relative_gain_over_what_may_be_zero() -> None:
    assert significance.bootstrap_ratio_interval(np.ones(5), np.array([0.0, 0, 0, 0, 1]), 0.05) is None


def test_pairs_are_tested_as_one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair by the test of one pair, corrected over all; the same from blocks of pairs."""
    values = noisy(60, 0.0, seed=7, comparisons=4) + np.array([0.0, 0.1, 0.4, 1.2])
    settings = Significance(method="t_test")
    matrix = significance.pairwise(values, settings)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    corrected = holm(np.array([stats.ttest_rel(values[:, i], values[:, j]).pvalue for i, j in pairs]))
    assert [matrix[pair] for pair in pairs] == pytest.approx(corrected.tolist())
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()
    monkeypatch.setattr(significance, "_PAIR_VALUES", 60)
    assert significance.pairwise(values, settings) == pytest.approx(matrix)


def test_resampled_pairs_agree_with_the_t_test() -> None:
    values = noisy(400, 0.0, seed=8, comparisons=3) + np.array([0.0, 0.05, 0.16])
    by_resamples = significance.pairwise(values, Significance(resamples=20_000))
    assert by_resamples == pytest.approx(significance.pairwise(values, Significance(method="t_test")), abs=0.02)


@pytest.mark.parametrize("seeds", [3, 5, 7, 10])
@pytest.mark.parametrize("method", ["randomization", "bootstrap", "t_test"])
def test_the_rounding_of_means_over_seeds_is_no_difference(seeds: int, method: str) -> None:
    """As many equal values, added and divided, are not always the value: the last bit leans the same way for all."""
    ranks = np.random.default_rng(0).integers(1, 40, 300)
    values = 1 / np.log2(1 + ranks)
    mean = sum([values] * seeds, np.zeros(300)) / seeds
    shares = sum([values / seeds] * seeds, np.zeros(300))
    differences = np.stack([mean - values, shares - values], axis=1)
    assert (p_values(differences, Significance(method=method)) == 1).all()  # type: ignore[arg-type]


def test_hits_in_thirds_that_make_up_for_each_other_are_no_difference() -> None:
    values = np.concatenate([np.full(60, 1 / 3), np.full(30, -2 / 3)])
    assert randomization(np.random.default_rng(1).permutation(values), 500)[0] == 1


@pytest.mark.parametrize("method", ["bootstrap", "t_test"])
@pytest.mark.parametrize("users", [2, 3, 9])
def test_few_users_are_tested_by_their_signs(users: int, method: str) -> None:
    settings = Significance(method=method)  # type: ignore[arg-type]
    assert p_values(np.full((users, 1), 0.5), settings) == pytest.approx([2 / 2**users])
    assert significance.least_p(settings, 4, users) == 0.0
    assert p_values(np.full((users, 1), 0.5), Significance(resamples=100)) == pytest.approx([2 / 2**users])
    # of ten it is what the config names
    assert p_values(np.full((10, 1), 0.5), settings)[0] < 2 / 2**10
