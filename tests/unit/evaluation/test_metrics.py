import math

import numpy as np
import pytest

from tessera.evaluation import metrics
from tessera.settings.evaluation import Evaluation


def test_metrics_of_known_ranks():
    ranks = np.array([1.0, 3.0, 10.0, 11.0, np.inf])
    assert metrics.hit(ranks, 10).tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(metrics.ndcg(ranks, 10), [1, 1 / math.log2(4), 1 / math.log2(11), 0, 0])
    np.testing.assert_allclose(metrics.mrr(ranks), [1, 1 / 3, 0.1, 1 / 11, 0])
    np.testing.assert_allclose(metrics.mrr(ranks, 10), [1, 1 / 3, 0.1, 0, 0])
    measured = Evaluation(cutoffs=[5, 10], mrr_cutoffs=[10])
    assert set(metrics.per_user(ranks, measured)) == set(measured.measured)
    assert set(measured.measured) == {"Hit@5", "Hit@10", "NDCG@5", "NDCG@10", "MRR", "MRR@10"}
    assert "MRR@10" not in metrics.per_user(ranks, Evaluation())


def test_ndcg_is_that_of_sklearn_style_gains():
    relevance = np.zeros(30)
    relevance[6] = 1
    gains = relevance[:10] / np.log2(np.arange(2, 12))
    assert metrics.ndcg(np.array([7.0]), 10)[0] == pytest.approx(gains.sum())


def test_coverage_and_gini():
    even = np.array([[1, 2], [3, 4]])
    one = np.array([[2, 0], [2, 0]])
    assert metrics.coverage(even, 4) == 1.0
    assert metrics.coverage(one, 4) == 0.25
    assert metrics.gini(even, 4) == pytest.approx(0.0)
    assert metrics.gini(one, 4) == pytest.approx(0.75)  # 1 - 1/n when one of n takes all


def test_gini_agrees_with_mean_absolute_difference():
    rng = np.random.default_rng(0)
    lists = rng.integers(1, 21, (40, 5))
    counts = np.bincount(lists.ravel(), minlength=21)[1:]
    expected = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) ** 2 * counts.mean())
    assert metrics.gini(lists, 20) == pytest.approx(expected)


def test_mean_popularity_skips_empty_places():
    assert metrics.mean_popularity(np.array([[1, 0], [2, 2]]), np.array([0, 10, 4])) == pytest.approx(6.0)
