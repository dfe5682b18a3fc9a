"""Probes: what was put into vectors is read off them, chance where nothing was, and never an item seen in fitting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from tessera.data.bazaar.attributes import VALUES
from tessera.data.bazaar.generate import generate
from tessera.data.bazaar.hidden import true_attributes
from tessera.data.bazaar.world import build_world
from tessera.evaluation import probes
from tessera.evaluation.probes import FOLDS, describe_probes, drawn, predictions, probe, probed_values
from tessera.settings.sources.bazaar import BazaarSource


def world(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors with a label in them on a scale of its own beside much noise, and the folds of their rows."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, n, p=(0.4, 0.3, 0.2, 0.1))
    signal = np.eye(4)[labels] * 1e-3 + rng.normal(0, 1e-4, (n, 4))
    vectors = np.concatenate([signal, 50 * rng.normal(size=(n, 6)), np.ones((n, 1))], 1).astype(np.float32)
    return vectors, labels, drawn([f"i{number}" for number in range(n)])[1]


def test_what_is_there_is_read_and_what_is_not_is_chance() -> None:
    vectors, labels, folds = world()
    told = probe(vectors, labels, folds)
    assert told["accuracy"] > 0.97
    assert told["balanced"] > 0.95
    assert (told["values"], told["items"], told["judged"]) == (4, 400, 400)
    assert told["majority"] == pytest.approx(np.bincount(labels).max() / 400)
    silent = probe(vectors[:, 4:], labels, folds)
    assert silent["accuracy"] == pytest.approx(silent["majority"], abs=0.06)
    assert silent["balanced"] == pytest.approx(0.25, abs=0.06)


def test_it_is_the_logistic_regression_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "STRENGTHS", (0.1,))
    vectors, labels, folds = world(seed=3)
    vectors[:, :4] += np.random.default_rng(1).normal(0, 4e-4, (400, 4))
    found = predictions(vectors, labels, folds, range(FOLDS))
    for fold in range(FOLDS):
        scaler = StandardScaler().fit(vectors[folds != fold].astype(np.float64))
        peer = LogisticRegression(C=0.1, max_iter=2000, tol=1e-8)
        peer.fit(scaler.transform(vectors[folds != fold]), labels[folds != fold])
        expected = peer.predict(scaler.transform(vectors[folds == fold]))
        assert (found[folds == fold] == expected).mean() > 0.97
    told = probe(vectors, labels, folds)
    assert told["accuracy"] == (found == labels).mean()
    assert told["balanced"] == pytest.approx(balanced_accuracy_score(labels, found))


def test_labels_of_judged_items_are_never_read() -> None:
    vectors, labels, folds = world(200)
    before = predictions(vectors, labels, folds, [2])
    turned = np.where(folds == 2, (labels + 1) % 4, labels)
    assert (predictions(vectors, turned, folds, [2]) == before).all()
    moved = np.where((folds == 2)[:, None], vectors * 1e4, vectors)  # nor how they are spread
    moved[np.flatnonzero(folds == 2)[1:]] = vectors[np.flatnonzero(folds == 2)[1:]]
    assert (predictions(moved, labels, folds, [2])[np.flatnonzero(folds == 2)[1:]] == before[folds == 2][1:]).all()
    assert (before[folds != 2] == -1).all()


def test_folds_depend_on_the_raw_id_alone() -> None:
    ids = [f"sku-{number}" for number in range(5000)]
    order, folds = drawn(ids)
    assert (np.abs(np.bincount(folds) / 5000 - 1 / FOLDS) < 0.03).all()
    again_order, again = drawn(ids[::-1])
    assert (again[::-1] == folds).all()
    assert (again_order[::-1] == order).all()
    assert (drawn(ids, seed=1)[1] != folds).any()


def test_texts_and_numbers_are_not_probed_and_rare_values_left_out() -> None:
    assert probed_values([f"text {number}" for number in range(300)]) == []
    assert probed_values(["one"] * 300) == []
    assert probed_values(["a", "b"] * 20) == []  # too few items
    assert probed_values(["b"] * 40 + ["a"] * 40 + ["rare"] * 4) == ["a", "b"]
    many = [f"v{number:02d}" for number in range(60) for _ in range(5 + (number >= 20))]
    assert len(probed_values(many)) == probes.MOST_VALUES
    assert {f"v{number:02d}" for number in range(20, 60)} <= set(probed_values(many))
    vectors, labels, _ = world(300)
    rows = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    present = np.arange(301) > 10  # the first ten have no vector
    kinds = {item: "abcd"[label] for item, label in enumerate(labels, 1)}
    kinds |= {20: "rare", 21: "rare"}
    attributes = {"kind": kinds, "title": {item: str(item) for item in range(1, 301)}, "few": {30: "a", 31: "b"}}
    told, unprobed = describe_probes(rows, present, [str(item) for item in range(1, 301)], attributes)
    assert list(told) == ["kind"]
    assert told["kind"]["items"] == 288
    assert told["kind"]["left_out"] == 2
    assert unprobed == ["title", "few"]


def test_large_catalogues_are_sampled_and_large_tables_judged_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels, folds = world(600)
    rows = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    attributes = {"kind": {item: "abcd"[label] for item, label in enumerate(labels, 1)}}
    ids = [str(item) for item in range(600)]
    monkeypatch.setattr(probes, "MOST_ITEMS", 250)
    told, _ = describe_probes(rows, np.arange(601) > 0, ids, attributes)
    assert (told["kind"]["items"], told["kind"]["judged"], told["kind"]["left_out"]) == (250, 250, 350)
    assert told == describe_probes(rows, np.arange(601) > 0, ids, attributes)[0]
    monkeypatch.setattr(probes, "MOST_NUMBERS", 1000)
    part = probe(vectors, labels, folds)
    assert part["judged"] == (folds == 0).sum()
    assert part["accuracy"] > 0.9


def test_the_true_attributes_are_those_of_the_world(tmp_path: Path) -> None:
    settings = BazaarSource(users=30, items=60, seed=3)
    generate(settings, tmp_path)
    made = build_world(settings)
    ids = [*made.raw_ids()[10:], "not of this world"]
    found = true_attributes(tmp_path / "latents.parquet", ids)
    assert found.keys() == made.latents.keys()
    for name, values in made.latents.items():
        assert found[name] == {number: VALUES[name][value] for number, value in enumerate(values[10:], 1)}
