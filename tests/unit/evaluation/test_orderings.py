"""Kendall's tau of histories against brute force, and what may take part in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tessera.data.dataset import Dataset
from tessera.evaluation.orderings import MOST, kendall, order_agreement, training_cases


def test_known_orders() -> None:
    rising = np.arange(6.0)
    assert kendall(rising, rising * 3 + 1) == (1, 1, 0)
    assert kendall(rising, -rising) == (-1, -1, 0)
    tau_a, tau_b, ties = kendall(rising, np.ones(6))
    assert (tau_a, ties) == (0, 1)
    assert np.isnan(tau_b)


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_scipy_and_of_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, (2, 12)).astype(float)
    tau_a, tau_b, ties = kendall(first, second)
    assert tau_b == pytest.approx(stats.kendalltau(first, second).statistic)
    pairs = [(j, k) for j in range(12) for k in range(j)]
    signs = [np.sign(first[j] - first[k]) * np.sign(second[j] - second[k]) for j, k in pairs]
    assert tau_a == pytest.approx(sum(signs) / len(pairs))
    assert ties == pytest.approx(np.mean([second[j] == second[k] and first[j] != first[k] for j, k in pairs]))


def dataset(histories: list[list[int]], splits: list[str] | None = None) -> Dataset:
    items = np.concatenate(histories).astype(np.int32)
    codes = {"train": 0, "valid": 1, "test": 2}
    split = np.concatenate([[codes[s] for s in row] for row in (splits or [["train"] * len(h) for h in histories])])
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    return Dataset(len(histories), 9, offsets, items, np.zeros(len(items), np.int64), split.astype(np.uint8))


def test_cases_hold_training_items_once_and_without_the_target() -> None:
    splits = [["train"] * 5 + ["valid", "test"], ["train"] * 3, ["train"] * 2, ["train"] * 4]
    data = dataset([[1, 2, 1, 4, 3, 8, 9], [5, 6, 5], [7, 8], [1, 2, 9, 6]], splits)  # type: ignore[arg-type]
    present = np.ones(10, bool)
    present[9] = False
    cases = {target: history.tolist() for target, history in training_cases(data, present)}
    assert cases == {3: [4, 1, 2], 6: [2, 1]}  # the second user has one item but its target, item 9 has no vector
    assert len(training_cases(data, present, users=1)) == 1
    assert len(training_cases(data, present, users=1, seed=1)) == 1


def test_long_histories_are_cut_at_the_end() -> None:
    count = MOST + 50
    data = dataset([list(range(1, count + 1))])
    history = training_cases(data, np.ones(count + 1, bool))[0][1]
    assert history.tolist() == list(range(count - 1, count - 1 - MOST, -1))


def test_agreement_of_tables() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(51, 6)).astype(np.float32)
    cases = [(int(row[0]), row[1:]) for row in (rng.permutation(50)[:8] + 1 for _ in range(40))]
    same = order_agreement(cases, table, table * 2 + 1)
    assert same is not None
    assert same == {"users": 40, "tau_a": 1, "tau_a_error": 0, "tau_b": 1, "tau_b_error": 0, "tie_rate": 0}
    other = order_agreement(cases, table, rng.normal(size=(51, 3)))
    assert other is not None
    assert abs(other["tau_a"]) < 4 * other["tau_a_error"] < 0.4
    # the standard error of the mean, which the bootstrap estimates
    taus = [
        kendall(*(np.linalg.norm(t[h].astype(float) - t[target], axis=1) for t in (table, table[:, :2])))[0]
        for target, h in cases
    ]
    found = order_agreement(cases, table, table[:, :2])
    assert found is not None
    assert found["tau_a"] == pytest.approx(np.mean(taus))
    assert found["tau_a_error"] == pytest.approx(np.std(taus) / np.sqrt(40), rel=0.15)
    assert order_agreement([], table, table) is None


def test_equal_vectors_tie_whatever_their_length() -> None:
    table = np.random.default_rng(1).normal(size=(30, 257)).astype(np.float32)
    quantised = table.copy()
    quantised[1:20] = table[1]
    found = order_agreement([(25, np.arange(1, 20))], table, quantised)
    assert found is not None
    assert (found["tau_a"], found["tie_rate"], found["tau_b"]) == (0, 1, None)


def test_cosine_does_not_see_lengths() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(size=(20, 4))
    scaled = table * rng.uniform(0.1, 9, (20, 1))
    cases = [(1, np.arange(2, 20))]
    assert order_agreement(cases, table, scaled, "cosine")["tau_a"] == pytest.approx(1)  # type: ignore[index]
    assert order_agreement(cases, table, scaled)["tau_a"] < 0.9  # type: ignore[index]
    assert order_agreement(cases, table, scaled * 1e-20, "cosine")["tau_a"] == pytest.approx(1)  # type: ignore[index]
