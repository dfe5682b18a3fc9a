"""Tables of trained item vectors: those of items that were trained, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tessera.artifacts.models import write_tensors
from tessera.artifacts.tables import ArtifactError, describe, read_item_table, write_table
from tessera.data.collaborative import collaborative_table
from tessera.settings.recipes.collaborative import CollaborativeTable

ITEMS = 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Item 4 is held out everywhere, item 5 is never seen."""
    columns = {"user": [1, 1, 1, 2, 2, 2], "item": [1, 2, 4, 3, 2, 4], "position": [0, 1, 2, 0, 1, 2],
               "split": ["train", "train", "test"] * 2}  # fmt: skip
    table = pa.table({**columns, "timestamp": pa.nulls(6, pa.int64()), "rating": pa.nulls(6, pa.float32())})
    write_table(tmp_path / "interactions.parquet", table, "interactions")
    ids = list(range(1, ITEMS + 1))
    empty = pa.array([[]] * ITEMS, pa.map_(pa.string(), pa.string()))
    items = {"item": ids, "raw_id": [f"i{i}" for i in ids], "title": [f"Item {i}" for i in ids], "attributes": empty}
    write_table(tmp_path / "items.parquet", pa.table({**items, "image": pa.nulls(ITEMS, pa.string())}), "items")
    write_table(tmp_path / "users.parquet", pa.table({"user": [1, 2], "raw_id": ["u1", "u2"]}), "users")
    return tmp_path


def test_items_without_training_interactions_have_no_row(data: Path, tmp_path: Path) -> None:
    weights = torch.randn(ITEMS + 1, 3)
    write_tensors(tmp_path / "model.safetensors", {"items.weight": weights})
    output = tmp_path / "table.parquet"
    collaborative_table(CollaborativeTable(), tmp_path / "model.safetensors", data, output)
    vectors, present = read_item_table(output, ITEMS)
    assert present.tolist() == [False, True, True, True, False, False]
    np.testing.assert_array_equal(vectors[1:4], weights[1:4].numpy())
    assert describe(output)["settings"]["recipe"] == "collaborative"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"items.adapter.weight": torch.ones(2, 2)}, "expected a run of `items: ids`"),
        ({"items.weight": torch.ones(9, 2)}, "vectors of 8 items, the dataset has 5"),
        ({"items.weight": torch.ones(6, 2)}, "all 3 rows have the same vector"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tensors: dict, message: str, data: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(ArtifactError, match=message):
        collaborative_table(CollaborativeTable(), tmp_path / "model.safetensors", data, tmp_path / "t.parquet")
