"""Click metrics against definitions written out, and against scikit-learn's."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from tessera.evaluation import clicks, significance


def data(n=400, users=20, ties=True, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.float32)
    scores = rng.random(n) * 0.6 + 0.3 * labels
    return rng.integers(1, users + 1, n), labels, np.round(scores, 1 if ties else 6)


def plain_auc(labels, scores):
    won = [(a > b) + 0.5 * (a == b) for a in scores[labels > 0] for b in scores[labels == 0]]
    return np.mean(won)


@pytest.mark.parametrize("ties", [True, False])
def test_auc_counts_pairs(ties):
    _, labels, scores = data(ties=ties)
    assert clicks.auc(labels, scores) == pytest.approx(plain_auc(labels, scores), abs=1e-12)


def test_auc_by_weights_is_auc_of_repeated_rows():
    _, labels, scores = data()
    weights = np.random.default_rng(1).integers(0, 3, (4, len(labels)))
    found = clicks.weighted_auc(labels, scores, weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        assert value == pytest.approx(plain_auc(np.repeat(labels, row), np.repeat(scores, row)), abs=1e-12)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(ties, seed):
    _, labels, scores = data(n=3000, ties=ties, seed=seed)
    assert clicks.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(labels))).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    assert clicks.weighted_auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)
    sure = np.clip(scores, clicks.CLIP, 1 - clicks.CLIP)
    assert clicks.log_losses(labels, scores).mean() == pytest.approx(log_loss(labels, sure), rel=1e-12)
    inner = scores + 1e-3  # ours takes a number on the edge of two bins up, scikit-learn's down
    clicked, predicted = calibration_curve(labels, inner, n_bins=15)
    found = clicks.calibration(labels, inner, 15)
    assert [row[:2] for row in found] == [pytest.approx(pair) for pair in zip(predicted, clicked, strict=True)]
    assert sum(row[2] for row in found) == len(labels)
    assert clicks.ece(labels, inner, 15) == pytest.approx(
        np.average(np.abs(predicted - clicked), weights=[row[2] for row in found])
    )


def test_one_class_has_no_auc():
    assert clicks.auc(np.ones(3), np.arange(3)) is None
    assert clicks.auc(np.zeros(0), np.zeros(0)) is None
    users = np.array([1, 1, 2, 2])
    told = clicks.by_user(users, np.array([1, 0, 1, 1]), np.array([0.9, 0.1, 0.2, 0.3]))
    assert clicks.gauc(told) == 1.0
    assert np.isnan(told.auc[1])
    assert clicks.gauc(clicks.by_user(users[:2], np.ones(2), np.ones(2))) is None


def test_gauc_weighs_users_by_impressions():
    users, labels, scores = data()
    total, weight = 0.0, 0
    for user in np.unique(users):
        mine = users == user
        if 0 < labels[mine].sum() < mine.sum():
            total += plain_auc(labels[mine], scores[mine]) * mine.sum()
            weight += mine.sum()
    assert clicks.gauc(clicks.by_user(users, labels, scores)) == pytest.approx(total / weight, abs=1e-12)


def test_every_user_has_the_auc_of_their_own_impressions():
    generator = np.random.default_rng(5)
    users = generator.choice([3, 8, 9, 40, 41], 400)
    users[:3] = 77  # one class alone
    labels, scores = (generator.random(400) < 0.3).astype(float), generator.integers(0, 12, 400) / 12
    labels[:3] = 1
    made = clicks.by_user(users, labels, scores)
    for user, own in zip(made.users, made.auc, strict=True):
        expected = clicks.auc(labels[users == user], scores[users == user])
        assert np.isnan(own) if expected is None else own == expected
    assert np.isnan(made.auc).sum() == 1
    empty = clicks.by_user(users[:0], labels[:0], scores[:0])
    assert empty.auc.shape == (0,)


def test_log_loss_and_ece_by_hand():
    labels, found = np.array([1, 0, 1, 0]), np.array([0.8, 0.4, 0.9, 0.1])
    expected = -np.mean([np.log(0.8), np.log(0.6), np.log(0.9), np.log(0.9)])
    assert clicks.log_losses(labels, found).mean() == pytest.approx(expected)
    assert np.isfinite(clicks.log_losses(np.array([1, 0]), np.array([0.0, 1.0]))).all()
    # two bins: (0.4, 0.1) with no click, (0.8, 0.9) all clicked
    assert clicks.ece(labels, found, 2) == pytest.approx(0.5 * 0.25 + 0.5 * 0.15)
    assert clicks.ece(np.array([1.0]), np.array([1.0]), 10) == 0


def test_resamples_are_those_of_drawn_users():
    users, labels, scores = data(n=150, users=12)
    found = clicks.resampled(users, labels, scores, 30, seed=3)
    known = np.unique(users)
    draws = np.concatenate([*clicks.user_draws(len(known), 30, 3)])
    assert (draws.sum(1) == len(known)).all()
    for row in range(30):
        rows = np.concatenate(
            [np.flatnonzero(users == u) for u, n in zip(known, draws[row], strict=True) for _ in range(int(n))]
        )
        assert found["AUC"][row] == pytest.approx(plain_auc(labels[rows], scores[rows]), abs=1e-12)
        assert found["log loss"][row] == pytest.approx(clicks.log_losses(labels[rows], scores[rows]).mean())
    low, high = clicks.interval(found["AUC"], 0.1)
    assert low < clicks.auc(labels, scores) < high


def test_pairs_of_users_give_the_auc_of_their_resamples(monkeypatch):
    users, labels, scores = data(n=300, users=14)
    known, inverse = np.unique(users, return_inverse=True)
    draws = np.concatenate([*clicks.user_draws(len(known), 20, 0)])
    draws[0] = 0  # nobody

    def found():
        return clicks.auc_of_draws(labels, scores, inverse, len(known), 20)(draws)

    expected = clicks.weighted_auc(labels, scores, draws[:, inverse])
    assert np.isnan(expected[0])
    np.testing.assert_array_equal(found(), expected)
    monkeypatch.setattr(clicks, "_CELLS", 1000)  # a few users at a time
    np.testing.assert_array_equal(found(), expected)
    monkeypatch.setattr(clicks, "_PAIRED_USERS", 13)  # and the other way to the same
    np.testing.assert_array_equal(found(), expected)
    wins = clicks.user_wins(labels, scores, inverse, len(known))
    a, b = 3, 5
    mine, other = (labels > 0) & (inverse == a), (labels == 0) & (inverse == b)
    pairs = (scores[mine][:, None] > scores[other]) + 0.5 * (scores[mine][:, None] == scores[other])
    assert wins[a, b] == pairs.sum()


def at_once(users, labels, probabilities, resamples, seed):
    """What `resampled` gives, with the draws of all resamples in one table."""
    told = clicks.by_user(users, labels, probabilities)
    generator, count = np.random.default_rng(seed), len(told.users)
    drawn = [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(resamples)]
    draws, fits = np.array(drawn, np.float64), ~np.isnan(told.auc)
    grouped = draws[:, fits] @ (told.auc[fits] * told.impressions[fits]) / (draws[:, fits] @ told.impressions[fits])
    aucs = clicks.weighted_auc(labels, probabilities, draws[:, told.inverse])
    return {"AUC": aucs, "GAUC": grouped, "log loss": (draws @ told.loss) / (draws @ told.impressions)}


@pytest.mark.parametrize(("users", "resamples"), [(20, 30), (60, 101), (300, 203), (777, 333)])
def test_blocks_of_resamples_change_no_bit(monkeypatch, users, resamples):
    given = data(n=8 * users, users=users, ties=False, seed=users)
    expected = at_once(*given, resamples, 7)
    for cells in (4_000_000, 20_000, 1):
        monkeypatch.setattr(clicks, "_CELLS", cells)
        found = clicks.resampled(*given, resamples, 7)
        for metric, values in expected.items():
            np.testing.assert_array_equal(found[metric], values, metric)


def peak(call):
    """Most bytes that arrays took beside what was there."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_resamples(monkeypatch):
    monkeypatch.setattr(clicks, "_CELLS", 100_000)
    given = data(n=9000, users=3000, ties=False)
    few, many = (peak(lambda n=n: clicks.resampled(*given, n, 0)) for n in (64, 640))
    assert 640 * 3000 * 8 > 15e6  # what all draws would take
    assert many < few + 1e6
    differences = np.random.default_rng(0).normal(0.1, 1.0, (3000, 4))
    monkeypatch.setattr(significance, "_CHUNK_VALUES", 100_000)
    for test in (significance.bootstrap, significance.randomization):
        few, many = (peak(lambda n=n, test=test: test(differences, n)) for n in (64, 6400))
        assert many < few + 1e6


def test_a_few_users_tell_nothing():
    users, labels, scores = data(n=120, users=clicks.LEAST_USERS - 1)
    found = clicks.resampled(users, labels, scores, 30, seed=3)
    better = clicks.resampled(users, labels, labels * 0.8 + 0.1, 30, seed=3)
    for metric, values in found.items():
        assert clicks.interval(values, 0.05) is None
        assert clicks.paired_p(better[metric] - values, 0.3) == 1.0


def test_the_paired_test_tells_a_better_model_from_the_same_one():
    users, labels, scores = data(n=2000, users=80, ties=False)
    better = scores + 0.05 * labels
    noisy = scores + np.random.default_rng(5).normal(0, 1e-6, len(scores))
    base = clicks.resampled(users, labels, scores, 400, 0)["AUC"]
    for other, small in ((better, True), (noisy, False)):
        drawn = clicks.resampled(users, labels, other, 400, 0)["AUC"] - base
        p = clicks.paired_p(drawn, clicks.auc(labels, other) - clicks.auc(labels, scores))
        assert (p < 0.01) == small
    assert clicks.paired_p(np.zeros(9), 0.0) == 1.0
