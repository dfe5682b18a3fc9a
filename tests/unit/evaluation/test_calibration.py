"""Platt's sigmoid and isotonic regression against scikit-learn and known truth; neither sees a judged label."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from tessera.evaluation import clicks
from tessera.evaluation.calibration import calibrated, fit_isotonic, fit_platt


def impressions(n: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, what an overconfident model says of them, and their true probabilities."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.2, n)
    return (rng.random(n) < expit(odds)).astype(np.float32), expit(2.5 * odds + 1).astype(np.float32), expit(odds)


def test_platt_finds_the_scale_and_keeps_the_order() -> None:
    labels, predicted, truth = impressions(40_000)
    better = fit_platt(labels, predicted)(predicted)
    assert np.abs(better - truth).max() < 0.03
    assert clicks.auc(labels, better) == clicks.auc(labels, predicted)
    peer = LogisticRegression(C=1e12, tol=1e-10, max_iter=5000).fit(logit(predicted.astype(float))[:, None], labels)
    expected = peer.predict_proba(logit(predicted.astype(float))[:, None])[:, 1]
    np.testing.assert_allclose(better, expected, atol=1e-4)


def separated(n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a model that tells them apart without an error."""
    labels = (np.arange(n) < share * n).astype(np.float32)
    odds = np.random.default_rng(n).uniform(0.2, 3, n)
    return labels, expit(np.where(labels > 0, odds, -odds))


def rare(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Few clicks among many impressions."""
    odds = np.random.default_rng(n).normal(-8, 0.8, n)
    return (np.random.default_rng(n + 1).random(n) < expit(odds)).astype(np.float32), expit(2 * odds + 6)


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        impressions(6000)[:2],
        impressions(30)[:2],
        separated(60, 0.5),
        separated(20_000, 0.1),
        separated(12, 1 / 12),
        rare(20_000),
    ],
    ids=["overconfident", "few", "separated", "many separated", "one click", "rare"],
)
def test_platt_is_the_minimum_over_his_targets(labels: np.ndarray, predicted: np.ndarray) -> None:
    """Platt (1999), section 2.2, written out and minimised by scipy: slope, shift, and what becomes of other scores."""
    odds, clicked = logit(predicted.astype(float)), labels == 1
    yes, no = clicked.sum(), (~clicked).sum()
    assert yes > 0
    target = np.where(clicked, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(line: np.ndarray) -> float:
        return float(-(target * log_expit(line[0] * odds + line[1])).sum()
                     - ((1 - target) * log_expit(-line[0] * odds - line[1])).sum())  # fmt: skip

    def slopes(line: np.ndarray) -> np.ndarray:
        off = expit(line[0] * odds + line[1]) - target
        return np.array([off @ odds, off.sum()])

    expected = minimize(loss, [1.0, 0.0], jac=slopes, method="BFGS", options={"gtol": 1e-8})
    assert np.abs(slopes(expected.x)).max() < 1e-5  # of a sum over all impressions: it is the minimum
    new = expit(np.linspace(-1, 1, 41))
    better = fit_platt(labels, predicted)(new)
    np.testing.assert_allclose(logit(better), expected.x[0] * logit(new) + expected.x[1], rtol=1e-4, atol=1e-4)


def test_platt_is_never_as_sure_as_nobody_can_be() -> None:
    """Of impressions that are told apart the slope had no bound: one wrong one later cost as much as can be."""
    labels, predicted = separated(100, 0.5)
    better = fit_platt(labels, predicted)(predicted)
    assert better.max() < 1 - 1e-4
    assert better.min() > 1e-4
    assert better.mean() == pytest.approx(0.5)
    wrong = fit_platt(labels, predicted)(np.array([0.55]))  # at the edge of the non-clicks, and is none
    assert clicks.log_losses(np.array([0.0]), wrong)[0] < 3


def test_platt_keeps_the_order_of_a_model_that_is_wrong_and_of_one_that_is_sure() -> None:
    labels, predicted, _ = impressions()
    against = 1 - predicted
    better = fit_platt(labels, against)(against)
    assert clicks.auc(labels, better) == clicks.auc(labels, against)
    assert better.mean() == pytest.approx(labels.mean(), abs=1e-6)
    sure = np.where(predicted > 0.9, np.float32(1), np.where(predicted < 0.05, np.float32(0), predicted))
    better = fit_platt(labels, sure)(sure)
    assert np.isfinite(better).all()
    assert clicks.auc(labels, better) == clicks.auc(labels, sure)


def test_isotonic_is_that_of_scikit_learn_and_never_sure() -> None:
    labels, predicted, truth = impressions()
    better = fit_isotonic(labels, predicted)(predicted)
    plain = IsotonicRegression(out_of_bounds="clip").fit(predicted.astype(float), labels)
    expected = plain.predict(predicted.astype(float))
    inner = (expected > 0.01) & (expected < 0.99)
    np.testing.assert_allclose(better[inner], expected[inner], atol=1e-12)
    assert better.min() >= 1 / 6002
    assert better.max() <= 1 - 1 / 6002
    assert (np.diff(better[np.argsort(predicted)]) >= 0).all()
    assert np.abs(better - truth).mean() < 0.03
    one = fit_isotonic(np.array([0.0, 1.0]), np.array([0.2, 0.7]))(np.array([0.0, 0.1, 0.9, 1.0]))
    np.testing.assert_allclose(one, [0.25, 0.25, 0.75, 0.75])


def test_both_mend_a_wrong_scale_on_impressions_that_they_did_not_see() -> None:
    valid, test = impressions(4000, 1), impressions(4000, 2)
    found = calibrated(valid[:2], test[:2], 15)
    plain = clicks.log_losses(test[0], test[1]).mean(), clicks.ece(test[0], test[1], 15)
    best = clicks.log_losses(test[0], test[2]).mean()
    for told in found.values():
        assert (told["samples"], told["fitted_on"]) == (4000, 4000)
        assert best - 1e-3 < told["metrics"]["log loss"] < best + 0.02 < plain[0]
        assert told["metrics"]["ECE"] < 0.03 < plain[1]
    assert found["Platt"]["metrics"]["AUC"] == clicks.auc(*test[:2])
    assert found["isotonic"]["metrics"]["AUC"] == pytest.approx(clicks.auc(*test[:2]), abs=0.01)


def test_labels_of_the_test_change_no_probability() -> None:
    valid, test = impressions(500, 1), impressions(500, 2)
    turned = 1 - test[0]
    for fit in (fit_platt, fit_isotonic):
        better = fit(*valid[:2])(test[1])
        assert calibrated(valid[:2], (turned, test[1]), 15)  # judged on other labels ...
        assert (fit(*valid[:2])(test[1]) == better).all()
        # ... the metrics are those of the very same probabilities
        name = "Platt" if fit is fit_platt else "isotonic"
        for labels in (test[0], turned):
            told = calibrated(valid[:2], (labels, test[1]), 15)[name]["metrics"]
            assert told["log loss"] == clicks.log_losses(labels, better).mean()


def test_one_class_calibrates_nothing() -> None:
    _, predicted, _ = impressions(50)
    for labels in (np.zeros(50), np.ones(50)):
        assert calibrated((labels, predicted), (labels, predicted), 15) == {}
    assert calibrated((np.zeros(0), np.zeros(0)), (np.ones(50), predicted), 15) == {}
