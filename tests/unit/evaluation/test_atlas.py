"""Maps of item tables: what they hold, that they come out the same, and that like items lie near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.tables import ArtifactError, describe, read_table, write_item_table, write_table
from tessera.evaluation import atlas
from tessera.evaluation.atlas import layout, make_atlas, used_method

ITEMS = 40


def groups(n: int = 90, dim: int = 12, count: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of some directions far from each other, and which direction each is of."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % count
    rows = rng.normal(size=(count, dim))[label] * 4 + rng.normal(size=(n, dim)) * 0.5
    return (rows * rng.uniform(1, 9, (n, 1))).astype(np.float32), label


def write_data(folder: Path, held_out: int = 1) -> Path:
    """Twenty histories over 40 items, of which the last two steps are held out."""
    columns: dict[str, list] = {"user": [], "item": [], "position": [], "split": []}
    for user in range(1, 21):
        history = [1 + (user * step) % ITEMS for step in range(1, 6)] + [held_out, 1 + held_out]
        columns["user"] += [user] * len(history)
        columns["item"] += history
        columns["position"] += range(len(history))
        columns["split"] += ["train"] * (len(history) - 2) + ["valid", "test"]
    n = len(columns["user"])
    log = pa.table({**columns, "timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32())})
    write_table(folder / "interactions.parquet", log, "interactions")
    write_table(
        folder / "users.parquet", pa.table({"user": range(1, 21), "raw_id": [f"u{i}" for i in range(20)]}), "users"
    )
    pairs = [[("colour", "red" if i % 2 else "blue"), ("note", f"only of {i}")] if i != 3 else [] for i in range(1, 41)]
    catalogue = pa.table(
        {
            "item": pa.array(range(1, ITEMS + 1), pa.int32()),
            "raw_id": [f"i{i}" for i in range(1, ITEMS + 1)],
            "title": [None if i == 2 else f"Thing {i}" for i in range(1, ITEMS + 1)],
            "attributes": pa.array(pairs, pa.map_(pa.string(), pa.string())),
            "image": [None if i == 4 else f"{i}.png" for i in range(1, ITEMS + 1)],
        }
    ).take(np.random.default_rng(1).permutation(ITEMS))  # rows in any order
    write_table(folder / "items.parquet", catalogue, "items", image_root="shop/images")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """All items but the seventh."""
    ids = np.array([i for i in range(1, ITEMS + 1) if i != 7])
    write_item_table(tmp_path / "text.parquet", ids, groups(ITEMS)[0][ids - 1])
    return tmp_path / "text.parquet"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_like_items_lie_near_and_always_in_the_same_place(method: atlas.Method) -> None:
    rows, label = groups()
    points = layout(rows, method)
    assert points.shape == (90, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points, layout(rows.copy(), method))
    # the length of a row tells nothing: coordinates are of directions
    np.testing.assert_array_equal(points, layout(rows * 4, method))
    np.testing.assert_array_equal(points, layout(rows * 2.0**-70, method))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (label[distance.argmin(1)] == label).mean() > 0.97


def test_principal_components_are_those_of_the_covariance() -> None:
    rows, _ = groups()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = (unit - unit.mean(0)).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    np.testing.assert_allclose(np.abs(layout(rows, "pca")), np.abs(centred @ axes[:, [-1, -2]]), atol=1e-5)


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (3, 1), (9, 1), (9, 2)])
def test_tiny_tables_have_maps(method: atlas.Method, shape: tuple[int, int]) -> None:
    points = layout(np.random.default_rng(0).normal(size=shape), method)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert layout(np.ones(shape), method).tolist() == [[0, 0]] * shape[0]


def test_large_tables_are_laid_out_by_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas, "MOST_TSNE", 50)
    assert (used_method("tsne", 50), used_method("tsne", 51), used_method("tsne", 3)) == ("tsne", "pca", "pca")
    rows, _ = groups(60)
    np.testing.assert_array_equal(layout(rows, "tsne"), layout(rows, "pca"))


def test_a_map_holds_what_is_known_of_its_items(tmp_path: Path, table: Path) -> None:
    data = write_data(tmp_path / "data")
    codes = np.random.default_rng(2).integers(0, 4, (ITEMS + 1, 5))
    codes[0] = codes[9] = ABSENT
    parts = (Part("text", (4, 4, 4), extra=True), Part("image", (4, 4)))
    write_codes(tmp_path / "views/codes.parquet", SemanticIds(codes, parts), {}, {})
    both = (Part("image+text", (4, 4, 4, 4, 4)),)
    write_codes(tmp_path / "both/codes.parquet", SemanticIds(codes, both), {}, {})
    recipes = [tmp_path / name / "codes.parquet" for name in ("views", "both")]
    make_atlas(table, data, tmp_path / "atlas.parquet", "pca", recipes)

    written = read_table(tmp_path / "atlas.parquet", "atlas")
    assert written.column_names == [
        "id", "item", "title", "x", "y", "attributes", "popularity", "picture", "attribute_colour",
        "code_views", "codes_views", "code_both", "codes_both",
    ]  # fmt: skip
    rows = {row["item"]: row for row in written.to_pylist()}
    assert list(rows) == [i for i in range(1, ITEMS + 1) if i != 7]
    counts = np.bincount([1 + (user * step) % ITEMS for user in range(1, 21) for step in range(1, 6)], minlength=41)
    for item, row in rows.items():
        assert row["id"] == f"i{item}"
        assert row["title"] == (None if item == 2 else f"Thing {item}")
        assert row["picture"] == (None if item == 4 else f"{item}.png")
        assert row["popularity"] == counts[item]
        colour = None if item == 3 else "red" if item % 2 else "blue"
        assert row["attribute_colour"] == colour
        assert row["attributes"] == (colour and f"colour: {colour}; note: only of {item}")
        own = None if item == 9 else [str(code) for code in codes[item]]
        assert (row["code_views"], row["codes_views"]) == ((own[0], "/".join(own[:2])) if own else (None, None))
        assert row["codes_both"] == (own and "/".join(own))
    points = layout(np.asarray(pq.read_table(table).column("embedding").to_pylist(), np.float32), "pca")
    np.testing.assert_array_equal(np.stack([written.column(axis) for axis in "xy"], 1), points)
    about = describe(tmp_path / "atlas.parquet")
    assert (about["settings"], about["image_root"]) == ({"method": "pca"}, "shop/images")


def test_no_held_out_interaction_is_counted(tmp_path: Path, table: Path) -> None:
    for name, held_out in (("a", 1), ("b", 30)):
        make_atlas(table, write_data(tmp_path / name, held_out), tmp_path / f"{name}.parquet", "tsne")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_table_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    write_item_table(tmp_path / "t.parquet", np.array([1, 41]), np.eye(2))
    with pytest.raises(ArtifactError, match=r"41 is not an id in 1\.\.40"):
        make_atlas(tmp_path / "t.parquet", write_data(tmp_path / "data"), tmp_path / "a.parquet", "pca")
    assert not (tmp_path / "a.parquet").exists()
