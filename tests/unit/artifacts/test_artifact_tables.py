"""Parquet artifacts say what they are, and readers refuse what they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessera.artifacts.tables import (
    ArtifactError,
    check_ids,
    check_item_table,
    describe,
    read_item_table,
    read_table,
    write_item_table,
    write_table,
)

USERS = pa.table({"user": pa.array([1, 2], pa.int64()), "raw_id": ["007", "Zoë"]})


def test_round_trip_casts_and_remembers(tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    write_table(path, USERS, "users", {"core": 5}, {"log": "abc"}, image_root="pictures")
    found = read_table(path, "users")
    assert found.schema.field("user").type == pa.int32()
    assert found.column("raw_id").to_pylist() == ["007", "Zoë"]
    about = describe(path)
    assert (about["kind"], about["settings"], about["inputs"]) == ("users", {"core": 5}, {"log": "abc"})
    assert about["image_root"] == "pictures"


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, USERS, "users")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    write_table(path, USERS, "users")
    with pytest.raises(ArtifactError, match=r"users\.parquet: is of kind 'users', expected 'items'"):
        read_table(path, "items")


def test_a_foreign_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(USERS, path)
    with pytest.raises(ArtifactError, match="kind None"):
        read_table(path, "users")


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        read_table(tmp_path / "none.parquet", "users")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(ArtifactError, match="not a Parquet file"):
        read_table(tmp_path / "half.parquet", "users")


def test_a_file_that_is_damaged_within_is_told_in_a_line(tmp_path: Path) -> None:
    """A copy that broke off, or a bad disk: the end is whole, so that it opens."""
    path = tmp_path / "users.parquet"
    write_table(path, USERS, "users")
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 8) + whole[4 + len(whole) // 8 :])
    with pytest.raises(ArtifactError, match=r"^\S*users\.parquet: is damaged \([^\n]*\)$"):
        read_table(path, "users")


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "users.parquet"
    write_table(path, USERS, "users")
    from tessera.artifacts import tables

    monkeypatch.setitem(tables.KINDS, "users", (2, tables.USERS))
    with pytest.raises(ArtifactError, match="version 1 of 'users', this Tessera reads 2"):
        read_table(path, "users")


def test_lacking_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "raw.parquet"
    write_table(path, USERS, "metrics")
    with pytest.raises(ArtifactError, match="title"):
        read_table(path, "metrics", ["raw_id", "title"])


@pytest.mark.parametrize(("values", "row"), [([1, 2, 9], 2), ([1, 0, 9], 1), ([None, 1], 0), ([-4], 0)])
def test_ids_outside_are_told_with_their_row(values: list[int | None], row: int) -> None:
    table = pa.table({"item": pa.array(values, pa.int32())})
    with pytest.raises(ArtifactError, match=rf"x\.parquet: row {row}, column 'item': {values[row]} "):
        check_ids("x.parquet", table, "item", 5)


def test_item_tables_are_keyed_by_id(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    order = np.array([2, 0, 1])
    items = np.array([1, 3, 4])
    write_item_table(tmp_path / "a.parquet", items, vectors)
    write_item_table(tmp_path / "b.parquet", items[order], vectors[order])
    first, present = read_item_table(tmp_path / "a.parquet", 4)
    second, _ = read_item_table(tmp_path / "b.parquet", 4)
    np.testing.assert_array_equal(first, second)
    assert present.tolist() == [False, True, False, True, True]
    np.testing.assert_array_equal(first[3], [2, 3])
    assert not first[[0, 2]].any()


def test_what_a_recipe_wrote_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(ArtifactError, match=r"t\.parquet: the recipe ended without having written it"):
        check_item_table(path, 3)
    good = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    write_item_table(path, np.array([1, 3]), good)
    check_item_table(path, 3)
    for items, vectors, said in (
        ([1, 3], np.ones((2, 2)), "all 2 rows have the same vector"),
        ([1, 3], np.array([[1.0, np.nan], [2.0, 3.0]]), "the vector of item 1 holds NaN"),
        ([0, 3], good, "0 is not an id in 1..3"),
        ([1, 4], good, "4 is not an id in 1..3"),
        ([1, 1], good, "item 1 stands 2 times"),
    ):
        write_item_table(path, np.array(items), vectors)
        with pytest.raises(ArtifactError, match=said):
            check_item_table(path, 3)
    for items, vectors in (([], np.zeros(0)), ([1], good), ([1, 2], np.zeros(2))):
        with pytest.raises(ArtifactError, match="expected a row for each"):
            write_item_table(path, np.array(items, np.int32), vectors)
    write_item_table(path, np.zeros(0, np.int32), np.zeros((0, 2)))
    with pytest.raises(ArtifactError, match="no item has a row"):
        check_item_table(path, 3)


def test_bad_item_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    good = np.ones((2, 3), np.float32)
    write_item_table(path, np.array([1, 1]), good)
    with pytest.raises(ArtifactError, match="item 1 stands 2 times"):
        read_item_table(path, 5)
    write_item_table(path, np.array([1, 6]), good)
    with pytest.raises(ArtifactError, match="row 1, column 'item': 6"):
        read_item_table(path, 5)
    bad = good.copy()
    bad[1, 2] = np.nan
    write_item_table(path, np.array([1, 2]), bad)
    with pytest.raises(ArtifactError, match="item 2 holds NaN"):
        read_item_table(path, 5)
