"""Item tables from files of vectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessera.artifacts.tables import ArtifactError, describe, read_item_table, write_table
from tessera.data.bazaar.attributes import SIZES
from tessera.data.bazaar.generate import generate
from tessera.data.vectors import check, import_table
from tessera.settings.recipes.latent import LatentTable
from tessera.settings.recipes.vectors import VectorsTable
from tessera.settings.sources.bazaar import BazaarSource

RECIPE = VectorsTable(path="unused")


def write_items(folder: Path, raw_ids: list[str]) -> Path:
    count = len(raw_ids)
    table = pa.table(
        {
            "item": pa.array(range(1, count + 1), pa.int32()),
            "raw_id": raw_ids,
            "title": pa.nulls(count, pa.string()),
            "attributes": pa.nulls(count, pa.map_(pa.string(), pa.string())),
            "image": pa.nulls(count, pa.string()),
        }
    )
    # in another order than the ids: rows are keyed by id, never by position
    write_table(folder / "items.parquet", table.take(list(reversed(range(count)))), "items")
    return folder / "items.parquet"


def imported(folder: Path, source: Path, raw_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    import_table(RECIPE, source, write_items(folder, raw_ids), folder / "table.parquet")
    assert describe(folder / "table.parquet")["settings"]["recipe"] == "vectors"
    return read_item_table(folder / "table.parquet", len(raw_ids))


def test_npy_rows_are_raw_ids(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float64).reshape(4, 3)
    np.save(tmp_path / "v.npy", array)
    vectors, present = imported(tmp_path, tmp_path / "v.npy", ["3", "00", "1"])
    assert np.array_equal(vectors[1:], array[[3, 0, 1]])
    assert present.tolist() == [False, True, True, True]


def test_one_vector_for_all_items_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((4, 3), 0.1))
    with pytest.raises(ArtifactError, match=r"v\.npy: all 3 rows have the same vector"):
        imported(tmp_path, tmp_path / "v.npy", ["3", "0", "1"])


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet_by_raw_id(tmp_path: Path, fixed: bool) -> None:
    embedding = pa.array([[1.0, 2.0], None, [5.0, 6.0], [7.0, 8.0]], pa.list_(pa.float32(), 2 if fixed else -1))
    pq.write_table(
        pa.table({"raw_id": ["x", "ü", "007", "of another"], "embedding": embedding}), tmp_path / "v.parquet"
    )
    vectors, present = imported(tmp_path, tmp_path / "v.parquet", ["007", "ü", "absent", "x"])
    assert present.tolist() == [False, True, False, False, True]
    assert vectors[1].tolist() == [5, 6]
    assert vectors[4].tolist() == [1, 2]


def test_parquet_by_dense_id(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": [2, 1], "embedding": [[3.0], [4.0]]}), tmp_path / "v.parquet")
    vectors, _ = imported(tmp_path, tmp_path / "v.parquet", ["a", "b"])
    assert vectors.ravel().tolist() == [0, 4, 3]


@pytest.mark.parametrize("ids", [pa.array([b"7", b"8", b"\xff"]), pa.array([7, 8, 9]).cast(pa.decimal256(50, 2))])
def test_parquet_by_raw_ids_of_rare_types(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"raw_id": ids, "embedding": [[3.0], [4.0], [5.0]]}), tmp_path / "v.parquet")
    vectors, _ = imported(tmp_path, tmp_path / "v.parquet", ["8", "7"])
    assert vectors.ravel().tolist() == [0, 4, 3]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"raw_id": ["a", "a"], "embedding": [[1.0], [2.0]]}, "raw_id 'a' stands 2 times"),
        ({"item": [2, 2], "embedding": [[1.0], [2.0]]}, "item 2 stands 2 times"),
        ({"raw_id": ["y", "z"], "embedding": [[1.0], [2.0]]}, "meets 0 of 2 items .*; in the file alone: 'y', 'z'"),
        ({"raw_id": ["a", "b"], "embedding": [[1.0], [2.0, 3.0]]}, "one width; found .*row 1"),
        ({"raw_id": ["a", "b"], "embedding": [[1.0], [float("nan")]]}, "item 'b' holds NaN"),
        ({"raw_id": ["a", "b"], "embeddings": [[1.0], [2.0]]}, "no column 'embedding'.*did you mean 'embeddings'"),
        ({"raw_id": ["a", "b"], "embedding": [1.0, 2.0]}, "expected lists of numbers"),
        ({"item": [1, 9], "embedding": [[1.0], [2.0]]}, "row 1, column 'item': 9 is not an id in 1..2"),
        ({"name": ["a", "b"], "embedding": [[1.0], [2.0]]}, "expected 'raw_id' or 'item', and 'embedding'"),
    ],
)
def test_bad_parquet(tmp_path: Path, columns: dict[str, list[object]], told: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(ArtifactError, match=told):
        imported(tmp_path, tmp_path / "v.parquet", ["a", "b"])


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([["a", "b"], ["c", "d"]], "list<element: string>"),
        ([[[1.0, 2.0]], [[3.0, 4.0]]], "list<element: list<element: double>>"),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.timestamp("s"))), "list<element: timestamp"),
    ],
)
def test_lists_of_what_is_no_number(tmp_path: Path, rows: object, kind: str) -> None:
    """Several vectors a row, texts, times: told with the file, and before anything runs."""
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"raw_id": ["a", "b"], "embedding": rows}), path)
    told = re.escape(f"v.parquet: column 'embedding' holds {kind}") + ".*, expected lists of numbers"
    with pytest.raises(ArtifactError, match=told):
        check(VectorsTable(path=str(path)))
    with pytest.raises(ArtifactError, match=told):
        imported(tmp_path, path, ["a", "b"])


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_the_table_and_rows_without_any(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[1e300, 0.0], [1.0, 2.0]]))
    with pytest.raises(ArtifactError, match="item '0' holds NaN, infinity or a number beyond float32"):
        imported(tmp_path, tmp_path / "v.npy", ["0", "1"])
    np.save(tmp_path / "v.npy", np.zeros((2, 0)))
    with pytest.raises(ArtifactError, match=r"v\.npy: array \(2, 0\) of float64, expected numbers \(items, dim\)"):
        imported(tmp_path, tmp_path / "v.npy", ["0", "1"])


def test_bad_files(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "two.npy", np.zeros((2, 3)))
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "v.parquet").write_text("not parquet")
    (tmp_path / "v.csv").write_text("a,1")
    for name, raw_id, told in (
        ("flat.npy", "0", "expected numbers"),
        ("two.npy", "2", r"item '2' is not a row number in 0\.\.1"),
        ("two.npy", "b1", "item 'b1' is not a row number"),
        ("text.npy", "0", "not an array of numbers"),
        ("v.parquet", "0", "not a Parquet file"),
        ("v.csv", "0", r"\.npy or \.parquet, not '\.csv'"),
        ("too.npy", "0", "no such file of item vectors; did you mean 'two.npy'"),
    ):
        with pytest.raises(ArtifactError, match=told):
            imported(tmp_path, tmp_path / name, [raw_id])


def test_latent_views(tmp_path: Path) -> None:
    generate(BazaarSource(users=20, items=40, missing=0.2), tmp_path / "raw")
    raw_ids = [f"b{index:06d}" for index in range(5, 40)]
    items = write_items(tmp_path, raw_ids)
    widths = {}
    for view in ("all", "text", "image"):
        output = tmp_path / f"{view}.parquet"
        import_table(LatentTable(view=view), tmp_path / "raw/latents.parquet", items, output)
        vectors, present = read_item_table(output, len(raw_ids))
        widths[view] = vectors.shape[1]
        assert present[1:].all() == (view != "image")  # a picture that is missing tells nothing
    assert widths["all"] == widths["text"] + widths["image"] - SIZES["category"]  # which both tell


def test_minilm_vectors_of_lfm2k(tmp_path: Path, data_root: Callable[..., Path]) -> None:
    path = data_root("lfm2k-multimodal", "multimodal_features", "mmrec_npy", "all-MiniLM-L6-v2.npy")
    raw_ids = [str(index) for index in range(1424, -1, -2)]
    vectors, present = imported(tmp_path, path, raw_ids)
    assert vectors.shape == (len(raw_ids) + 1, 384)
    assert present[1:].all()
    assert np.array_equal(vectors[1], np.load(path)[1424])
