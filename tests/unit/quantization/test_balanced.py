"""Assignment with a bound: exact on few rows, near the least cost on more, the bound always kept."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tessera.quantization.balanced_rq_kmeans import STEP, _auction, bounded_assignment, capacity, fit
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


@pytest.mark.parametrize(("n", "columns", "slack"), [(300, 12, 1.0), (300, 12, 1.5), (301, 40, 1.0), (100, 100, 1.0)])
def test_the_auction_is_near_the_least_cost(n: int, columns: int, slack: float) -> None:
    values = distances(n, columns)
    most = capacity(n, columns, slack)
    chosen = _auction(values, most)
    exact = linear_sum_assignment(np.repeat(values, most, 1))[1] // most
    assert np.bincount(chosen, minlength=columns).max() <= most
    # Bertsekas: within rows x step of the least cost
    assert cost(values, exact) - 1e-9 <= cost(values, chosen)
    assert cost(values, chosen) <= cost(values, exact) + n * STEP * values.min(1).mean() + 1e-9


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
