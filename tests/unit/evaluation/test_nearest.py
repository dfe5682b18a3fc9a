"""Exact neighbours by faiss: those of the dense way, to the item, on data without ties."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from tessera.data.directions import unit_rows
from tessera.evaluation import representations
from tessera.evaluation.nearest import nearest, one_thread
from tessera.evaluation.representations import neighbours_and_uniformity


def table(n: int = 3000, dim: int = 24) -> np.ndarray:
    return unit_rows(np.random.default_rng(n).normal(size=(n, dim)) + 0.2)


def test_it_is_the_dense_way_on_data_without_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = table()
    anchors = np.sort(np.random.default_rng(1).choice(len(unit), 200, replace=False))
    rows, cosines, uniformity = neighbours_and_uniformity(unit, anchors, 8)
    monkeypatch.setattr(representations, "MOST_DENSE", 100)
    by_faiss = neighbours_and_uniformity(unit, anchors, 8)
    assert (by_faiss[0] == rows).all()
    np.testing.assert_allclose(by_faiss[1], cosines, atol=1e-6)
    assert by_faiss[2] == pytest.approx(uniformity, rel=1e-5)  # all rows are among the pairs
    monkeypatch.setattr(representations, "MOST_ANCHORS", 500)
    assert neighbours_and_uniformity(unit, anchors, 8)[2] == pytest.approx(uniformity, abs=0.05)


def test_no_row_is_its_own_neighbour_even_among_copies() -> None:
    unit = np.repeat(table(5), 30, axis=0)
    anchors = np.arange(len(unit))
    rows, products = nearest(unit, anchors, 6)
    assert (rows != anchors[:, None]).all()
    assert (rows // 30 == anchors[:, None] // 30).all()
    np.testing.assert_allclose(products, 1.0, atol=1e-6)
    assert all(len(set(near)) == 6 for near in rows.tolist())


def test_few_rows_give_short_lists() -> None:
    rows, products = nearest(table(4), np.array([2]), 10)
    assert sorted(rows[0].tolist()) == [0, 1, 3]
    assert (np.diff(products) <= 0).all()


def test_threads_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    with one_thread():
        assert faiss.omp_get_max_threads() == 1
    assert faiss.omp_get_max_threads() == before
