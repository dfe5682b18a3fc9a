"""A catalogue that says the same of all items is refused before a training, not after it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_language import attributes_of, tiny_model, write_data

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tiny_vision import tiny_built, write_built, write_pictured

from tessera.artifacts.tables import write_table
from tessera.embedding.recipe import Given, TrainedRecipe
from tessera.embedding.text import check_texts_differ
from tessera.language.models import load_model
from tessera.settings.kinds import implementation
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.moca import MoCaTable
from tessera.settings.recipes.pairs import PairsTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.training.machine import Machine

STEPS = {"steps": 2, "batch": 4, "device": "cpu"}
SAME = "the same is read of all {} items, which tells none from another; look at what is told of the items"


def begin(table: Any, folder: Path, model: Any = None) -> None:
    given = Given(ItemPrompt(), model or tiny_model(), folder / "items.parquet", {}, folder)
    first = LRCLTable(model="x")
    start = implementation(first)(first, given) if isinstance(table, CRRLTable) else None
    recipe: TrainedRecipe = implementation(table)(table, given, start)
    recipe.begin(Machine(table.training))


def write_titles(folder: Path, titles: list[str]) -> Path:
    """A dataset whose items have a title alone."""
    write_data(folder, len(titles))
    ids = list(range(1, len(titles) + 1))
    columns = {
        "item": ids, "raw_id": [f"raw{i}" for i in ids], "title": titles,
        "attributes": pa.array([[] for _ in ids], pa.map_(pa.string(), pa.string())),
        "image": pa.nulls(len(ids), pa.string()),
    }  # fmt: skip
    write_table(folder / "items.parquet", pa.table(columns), "items")
    return folder


TABLES = [
    SCFTTable.model_validate({"model": "x", "training": STEPS}),
    PairsTable.model_validate({"model": "x", "training": STEPS}),
    LRCLTable.model_validate({"model": "x", "training": STEPS}),
    LRCLTable.model_validate({"model": "x", "training": STEPS, "preset": "official"}),
    CRRLTable.model_validate({"model": "x", "candidates": 3, "training": STEPS}),
    MoCaTable.model_validate({"model": "x", "training": STEPS, "continual": {"steps": 2, "budget": 400}}),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.recipe}-{getattr(table, 'preset', '')}")
def test_the_same_text_of_all_items_is_refused(table: Any, tmp_path: Path) -> None:
    data = write_titles(tmp_path / "data", ["red lamp"] * 12)
    with pytest.raises(ValueError, match=rf"items\.parquet: {SAME.format(11)}"):  # the last is held out
        begin(table, data)
    # one that differs is enough, and one that nobody trained on is not
    begin(table, write_titles(tmp_path / "one", ["red lamp"] * 7 + ["blue chair"] + ["red lamp"] * 4))
    with pytest.raises(ValueError, match="the same is read of all 11 items"):
        begin(table, write_titles(tmp_path / "last", ["red lamp"] * 11 + ["blue chair"]))


def test_texts_that_differ_behind_a_cut_are_the_same(tmp_path: Path) -> None:
    data = write_titles(tmp_path / "data", [f"{'red lamp ' * 40}{n}" for n in range(12)])
    table = SCFTTable.model_validate({"model": "x", "training": STEPS, "max_tokens": 40})
    with pytest.raises(ValueError, match="the same is read of all 11 items"):
        begin(table, data)


def test_pictures_tell_items_apart(tmp_path: Path) -> None:
    data = write_pictured(tmp_path, 8, [f"{n}.png" for n in range(1, 9)], ["Oak lamp"] * 8)
    table = MoCaTable.model_validate({"model": "x", "shown": "both", "training": STEPS, "continual": {"steps": 0}})
    model = load_model(tiny_built(), write_built(tmp_path / "model", tiny_built()))
    begin(table, data, model)
    one = (tmp_path / "pictures" / "1.png").read_bytes()
    for item in range(2, 9):
        (tmp_path / "pictures" / f"{item}.png").write_bytes(one)
    with pytest.raises(ValueError, match="the same is read of all"):
        begin(table, data, model)


def test_no_more_is_read_than_it_takes() -> None:
    rows = iter([attributes_of(1), attributes_of(2), attributes_of(3)])
    check_texts_differ(Path("items.parquet"), rows)
    assert next(rows) == attributes_of(3)
    check_texts_differ(Path("items.parquet"), [attributes_of(1)])  # of one there is nothing to tell apart
