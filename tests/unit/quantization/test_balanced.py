"""Assignment with a bound: exact on few rows, near the least cost on more, the bound always kept."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from quick import quick
from tessera.quantization.balanced_rq_kmeans import capacity, fit
from tessera.quantization.bounded import auction, bounded_assignment, complete, least_rise
from tessera.quantization.vectors import PartVectors
from tessera.settings.quantizers.balanced_rq_kmeans import BalancedRQKMeans

torch.set_num_threads(1)


def distances(n: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, 3)), rng.standard_normal((columns, 3)) + 0.8
    return np.square(a[:, None] - b[None]).sum(-1)


def cost(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[np.arange(len(chosen)), chosen].sum())


def test_few_rows_at_the_least_cost() -> None:
    values = distances(7, 3)
    least = min(
        cost(values, np.array(chosen))
        for chosen in product(range(3), repeat=7)
        if max(np.bincount(chosen, minlength=3)) <= 3
    )
    assert np.bincount(values.argmin(1), minlength=3).max() > 3
    assert cost(values, bounded_assignment(values, 3)) == pytest.approx(least)


def crowd(n: int, columns: int, noise: float, seed: int = 0) -> np.ndarray:
    """Squared distances of rows around `columns` points, uneven crowds, to these points; copies where `noise` is 0."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((columns, 4))
    rows = points[rng.choice(columns, n, p=rng.dirichlet(np.ones(columns)))] + noise * rng.standard_normal((n, 4))
    return np.square(rows[:, None] - points[None]).sum(-1)


BOUNDED = {
    "ordinary": (distances(300, 12), 1.0),
    "loose": (distances(300, 12), 1.5),
    "many columns": (distances(301, 40), 1.0),
    "a row a column": (distances(100, 100), 1.0),
    "wide crowds": (crowd(400, 16, 0.3), 1.0),
    "tight crowds": (crowd(700, 24, 0.01), 1.0),
    "tighter, loose": (crowd(700, 24, 0.001), 1.3),
    "copies": (crowd(700, 24, 0.0), 1.0),
    "few copies": (crowd(700, 10, 0.0), 1.0),
    "equal columns": (np.repeat(crowd(640, 8, 0.0), 4, 1), 1.2),
    "equal rows": (np.tile(distances(1, 50), (1000, 1)), 1.0),
    "all alike": (np.zeros((640, 20)), 1.0),
    "far": (1e9 + crowd(640, 20, 0.1), 1.0),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_more_rows_end_within_rows_times_the_step_of_the_least_cost(name: str) -> None:
    values, slack = BOUNDED[name]
    most = capacity(*values.shape, slack)
    exact = cost(values, linear_sum_assignment(np.repeat(values, most, 1))[1] // most)
    chosen = complete(values, most, *auction(values, most))
    assert np.bincount(chosen, minlength=values.shape[1]).max() <= most
    assert exact * (1 - 1e-12) <= cost(values, chosen) <= exact + len(values) * least_rise(values) + 1e-9


def test_shortest_paths_complete_whatever_the_auction_left(monkeypatch: pytest.MonkeyPatch) -> None:
    values = distances(300, 12)
    most = capacity(300, 12, 1.0)
    exact = cost(values, linear_sum_assignment(np.repeat(values, most, 1))[1] // most)
    for rounds in (0, 1, 5, 20):
        monkeypatch.setattr("tessera.quantization.bounded.ROUNDS", rounds)
        owner, prices = auction(values, most)
        assert (owner < 0).any()
        chosen = complete(values, most, owner, prices)
        assert np.bincount(chosen).max() <= most
        assert cost(values, chosen) <= exact + 300 * least_rise(values)


def test_copies_are_settled_without_thousands_of_rounds() -> None:
    values = crowd(2000, 64, 0.0)
    quick(lambda: bounded_assignment(values, capacity(2000, 64, 1.0)), 3)  # 0.3; a round of the auction takes 1 ms


def test_equal_rows_keep_the_bound() -> None:
    values = np.tile(distances(1, 50), (1000, 1))
    chosen = bounded_assignment(values, 20)
    assert np.bincount(chosen, minlength=50).tolist() == [20] * 50


def test_rows_that_fit_anyway_take_their_nearest() -> None:
    values = distances(40, 5)
    assert bounded_assignment(values, 40).tolist() == values.argmin(1).tolist()


def test_more_rows_than_places_are_refused() -> None:
    with pytest.raises(ValueError, match="7 rows do not fit into 3 clusters of 2"):
        bounded_assignment(distances(7, 3), 2)


@pytest.mark.parametrize("slack", [1.0, 1.3])
def test_no_cluster_of_any_level_is_larger_than_its_bound(slack: float) -> None:
    rng = np.random.default_rng(0)
    vectors = np.square(rng.standard_normal((730, 6))).astype(np.float32)  # a crowd near zero
    data = PartVectors("t", vectors, np.ones(730, bool), (6,))
    settings = BalancedRQKMeans(tables=["t"], codes=16, levels=3, iterations=5, slack=slack)
    (part,) = fit(settings, [data], None).parts
    codes = part.choose(part.encode(torch.from_numpy(vectors)))
    for level in range(3):
        assert int(torch.bincount(codes[:, level]).max()) <= int(np.ceil(slack * 730 / 16))
