"""The reader of prepared datasets: histories, cases and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tessera.artifacts.tables import ArtifactError, write_table
from tessera.data.dataset import load_dataset, read_raw_ids

ROWS = [  # user, item, timestamp, position, split
    (1, 1, 10, 0, "train"),
    (1, 2, 20, 1, "train"),
    (1, 3, 30, 2, "valid"),
    (1, 1, 40, 3, "test"),
    (2, 2, 10, 0, "train"),
    (3, 3, 10, 0, "train"),
    (3, 1, 20, 1, "history"),
    (3, 2, 30, 2, "test"),
]


def write(folder: Path, rows: list[tuple[int, int, int, int, str]] = ROWS) -> Path:
    user, item, timestamp, position, split = map(list, zip(*rows, strict=True))
    columns = {"user": user, "item": item, "timestamp": timestamp, "position": position, "split": split}
    table = pa.table({**columns, "rating": pa.nulls(len(rows), pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    write_table(folder / "users.parquet", pa.table({"user": [1, 2, 3], "raw_id": ["a", "b", "c"]}), "users")
    attributes = pa.array([[], [], []], pa.map_(pa.string(), pa.string()))
    nothing = pa.nulls(3, pa.string())
    items = {"item": [1, 2, 3], "raw_id": ["x", "y", "z"], "title": nothing, "attributes": attributes, "image": nothing}
    write_table(folder / "items.parquet", pa.table(items), "items")
    return folder


def test_histories_and_cases(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path))
    assert (data.n_users, data.n_items) == (3, 3)
    offsets, items = data.train_histories()
    assert offsets.tolist() == [0, 2, 3, 4]
    assert items.tolist() == [1, 2, 2, 3]
    test = data.cases("test")
    assert test.users.tolist() == [1, 3]
    assert test.targets.tolist() == [1, 2]
    assert [test.history(i).tolist() for i in range(len(test))] == [[1, 2, 3], [3, 1]]
    valid = data.cases("valid")
    assert [valid.history(i).tolist() for i in range(len(valid))] == [[1, 2]]
    assert data.train_counts.tolist() == [0, 1, 2, 1]
    assert read_raw_ids(tmp_path, "items") == ["", "x", "y", "z"]


def test_row_order_does_not_matter(tmp_path: Path) -> None:
    ordered = load_dataset(write(tmp_path / "a"))
    shuffled = load_dataset(write(tmp_path / "b", [ROWS[i] for i in np.random.default_rng(0).permutation(len(ROWS))]))
    for name in ("offsets", "items", "timestamps", "split"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(shuffled, name))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((3, 4, 40, 3, "train"), "row 8, column 'item': 4 is not an id in 1..3"),
        ((4, 1, 40, 3, "train"), "row 8, column 'user': 4 is not an id in 1..3"),
        ((2, 1, 40, 3, "later"), "row 8, column 'split': 'later'"),
        ((3, 1, 40, 3, "train"), "user 3 has a train row after a test row"),
        ((3, 1, 40, 3, "test"), "user 3 has 2 test rows"),
    ],
)
def test_refusals(tmp_path: Path, row: tuple[int, int, int, int, str], message: str) -> None:
    with pytest.raises(ArtifactError, match=r"interactions\.parquet") as caught:
        load_dataset(write(tmp_path, [*ROWS, row]))
    assert message in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"items\.parquet: no such file"):
        load_dataset(tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match="expected 'valid' or 'test'"):
        load_dataset(tmp_path).cases("train")  # type: ignore[arg-type]
