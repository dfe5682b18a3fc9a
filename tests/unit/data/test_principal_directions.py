"""Principal directions by blocks of the covariance: those of scikit-learn and of singular values, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tessera.data import principal
from tessera.data.principal import principal_directions, scatter
from tessera.embedding.finish import finish, fit
from tessera.settings.recipes.base import Finish


def embeddings(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows as language models give them: few strong directions, many weak ones, and a mean that all share."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(width, width)))[0]
    strength = np.arange(1, width + 1) ** -0.8
    return ((rng.normal(size=(n, width)) * strength) @ turned + 0.5).astype(np.float32)


@pytest.mark.parametrize(("n", "width"), [(900, 40), (41, 40), (40, 40), (25, 40), (2, 3)])
def test_directions_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, n: int, width: int) -> None:
    monkeypatch.setattr(principal, "_ROWS", 17)  # many blocks, the last one short
    x = embeddings(n, width)
    directions, squares = principal_directions(x, x.mean(0, dtype=np.float64))
    count = min(width, n - 1)
    assert directions.shape == (count, width)
    peer = PCA(count, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(squares / (n - 1), peer.explained_variance_, rtol=1e-9)
    signs = np.sign((directions * peer.components_).sum(1))
    np.testing.assert_allclose(directions * signs[:, None], peer.components_, atol=1e-7)
    assert (directions[np.arange(count), np.abs(directions).argmax(1)] > 0).all()


def by_singular_values(x: np.ndarray, settings: Finish) -> np.ndarray:
    """Rows of a table from the singular value decomposition of all vectors at once."""
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
    axes, spread = axes[: settings.pca], spread[: settings.pca]
    found = centred @ axes.T * (spread / spread[0]) ** -settings.whiten
    return found / np.linalg.norm(found, axis=1, keepdims=True) if settings.l2 else found


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_tables_are_those_of_singular_values(whiten: float) -> None:
    x, settings = embeddings(1500, 96), Finish(pca=32, whiten=whiten, l2=True)
    np.testing.assert_allclose(finish(x, settings), by_singular_values(x, settings), atol=4e-8)


def test_blocks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x, settings = embeddings(700, 24), Finish(pca=8, whiten=1.0)
    whole, kept = finish(x, settings), fit(x, settings)
    monkeypatch.setattr(principal, "_ROWS", 64)
    np.testing.assert_allclose(finish(x, settings), whole, atol=1e-6)
    assert kept is not None
    np.testing.assert_allclose(finish(x[100:101], settings, kept), whole[100:101], atol=1e-6)


def test_no_copy_of_the_vectors_is_made() -> None:
    x = embeddings(40_000, 64)
    mean = x.mean(0, dtype=np.float64)
    tracemalloc.start()
    scatter(x, mean)
    principal_directions(x, mean)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.2 * x.nbytes  # a copy in 64 bits takes twice the vectors, blocks stay as large as they are
    tracemalloc.start()
    principal_directions(np.concatenate([x, x]), mean)
    twice = tracemalloc.get_traced_memory()[1] - 2 * x.nbytes
    tracemalloc.stop()
    assert twice < 1.1 * most
