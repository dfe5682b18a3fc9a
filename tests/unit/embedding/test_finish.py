"""Principal components against the covariance matrix; fixed signs; distances; unit length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError
from tessera.embedding.finish import find_components, finish, fit, read_components, write_components
from tessera.settings.recipes.base import Finish


def vectors(n: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, width)) @ generator.normal(size=(width, width)) + 5


@pytest.mark.parametrize(("n", "width", "count"), [(40, 6, 3), (5, 12, 3)])
def test_against_the_eigenvectors_of_the_covariance(n: int, width: int, count: int) -> None:
    x = vectors(n, width)
    centred = x - x.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, ::-1][:, :count]
    found = find_components(x, count).of(x)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-9)
    assert (np.diff(found.var(0)) < 0).all()


def test_signs_do_not_depend_on_the_order_or_sign_that_the_library_finds() -> None:
    x = vectors(30, 5)
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(find_components(x[order], 4).of(x[order]), find_components(x, 4).of(x)[order], atol=1e-9)


@pytest.mark.parametrize(("n", "width"), [(20, 6), (4, 9)])
def test_all_components_keep_distances(n: int, width: int) -> None:
    x = vectors(n, width)
    found = finish(x, Finish(pca=100, whiten=0.0))
    assert found.dtype == np.float32
    assert found.shape == (n, min(width, n - 1))

    def distances(rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows[:, None] - rows[None], axis=2)

    np.testing.assert_allclose(distances(found.astype(np.float64)), distances(x), rtol=1e-4, atol=1e-5)


def test_unit_length_and_neither() -> None:
    x = vectors(6, 3)
    x[2] = 0
    np.testing.assert_array_equal(finish(x, Finish(whiten=0.0)), x.astype(np.float32))
    scaled = finish(x, Finish(whiten=0.0, l2=True))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-6)


def test_a_catalogue_of_one_or_of_equals() -> None:
    assert finish(np.ones((1, 4)), Finish(pca=3)).shape == (1, 1)
    np.testing.assert_allclose(finish(np.ones((5, 4)), Finish(pca=2)), 0, atol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_whitening_evens_components_out(power: float) -> None:
    x = vectors(50, 6)
    x = np.concatenate([x, x[:, :2] @ np.ones((2, 2))], 1)  # two directions that tell nothing
    plain = find_components(x, 8).of(x).std(0)[:6]
    found = finish(x, Finish(whiten=power))
    assert found.shape == (50, 6)
    expected = plain / (plain / plain[0]) ** power
    np.testing.assert_allclose(found.std(0), expected, rtol=1e-5)
    if power == 1.0:
        np.testing.assert_allclose(found.std(0), found.std(0)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [Finish(), Finish(pca=3), Finish(whiten=0.0), Finish(whiten=1.0, l2=True), Finish(pca=2, whiten=0.0, l2=True)],
    ids=str,
)
def test_later_rows_go_the_same_way(settings: Finish, tmp_path: Path) -> None:
    """A row that comes later stands where it would stand in the table, by what was kept of the table alone."""
    x = vectors(40, 6)
    table = finish(x, settings)
    write_components(tmp_path / "t.finish.safetensors", fit(x, settings))
    kept = read_components(tmp_path / "t.finish.safetensors")
    np.testing.assert_allclose(finish(x[[7]], settings, kept), table[[7]], rtol=1e-6, atol=1e-7)
    between = finish((x[[3]] + x[[4]]) / 2, settings, kept)
    if not settings.l2:
        np.testing.assert_allclose(between, (table[[3]] + table[[4]]) / 2, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(np.linalg.norm(between), 1, atol=1e-6)


def test_a_table_of_before_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="make the table again"):
        read_components(tmp_path / "t.finish.safetensors")


def test_fewer_components_are_told_to_who_asked_for_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", log.name)
    fit(vectors(5, 12), Finish(pca=None))
    assert "asked for" not in caplog.text
    fit(vectors(5, 12), Finish(pca=8))
    assert "8 principal components asked for, 4 there are" in caplog.text
