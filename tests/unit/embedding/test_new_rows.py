"""Rows of items that came after a table was made: read by the same model, finished as its rows were."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny_language import attributes_of, tiny_model, write_data

from tessera.artifacts.tables import ArtifactError, read_item_table, read_table, write_item_table, write_table
from tessera.embedding.embed import embed
from tessera.embedding.task import Places, Task
from tessera.embedding.tune import tune
from tessera.recommenders.inputs import RunInputs
from tessera.serving.attribute_order import in_order_of, merged_order, orders_of
from tessera.serving.folder import RunFiles
from tessera.serving.new_items import read_products, rows_of
from tessera.settings.runs import Run

TRAINING = {"steps": 2, "batch": 8, "checkpoint_seconds": 0.0}
RECIPES: dict[str, dict[str, Any]] = {
    "text": {"recipe": "text", "model": "m"},
    "plain": {"recipe": "text", "model": "m", "whiten": 0.0},
    "sentences": {"recipe": "text", "model": "m"},
    "scft": {"recipe": "scft", "model": "m", "pca": 4, "training": TRAINING},
    "pairs": {"recipe": "pairs", "model": "m", "pca": 4, "training": TRAINING},
    "moca": {
        "recipe": "moca",
        "model": "m",
        "pca": 4,
        "training": TRAINING,
        "continual": {"steps": 2, "budget": 400},
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a table a recipe, where the workflow keeps them."""
    folder = tmp_path_factory.mktemp("results") / "x"
    write_data(folder / "data")
    model = tiny_model()
    model.full.save_pretrained(folder / "lm")
    model.tokenizer.save_pretrained(folder / "lm")
    for name, recipe in RECIPES.items():
        # of an attribute that no new item may have the first sentence is told
        prompt = {"first_sentence": [next(iter(dict(attributes_of(5))))]} if name == "sentences" else {}
        task = Task.model_validate({"table": recipe, "model": {"folder": str(folder / "lm")}, "prompt": prompt})
        common: dict[str, Any] = {"catalogue": str(folder / "data/items.parquet"), "captions": {}, "model": None}
        own = folder / f"embedders/{name}/model.safetensors"
        if task.table.TRAINS:
            tune(task, Places(**common, data=str(folder / "data")), own, folder / "state", "")
        places = Places(**common, embedder=str(own) if task.table.TRAINS else None)
        embed(task, places, folder / f"tables/{name}.parquet", folder / "state", "")
    said = {"item": list(range(1, 21)), "text": [f"a lamp {n}" for n in range(20)], "status": ["captioned"] * 20}
    write_table(folder / "said.parquet", pa.table(said), "captions")
    captions = {"recipe": "text", "model": "m", "captions": ["said"], "only_captions": True}
    task = Task.model_validate({"table": captions, "model": {"folder": str(folder / "lm")}, "prompt": {}})
    places = Places(
        catalogue=str(folder / "data/items.parquet"), captions={"said": str(folder / "said.parquet")}, model=None
    )
    embed(task, places, folder / "tables/captions.parquet", folder / "state", "")
    return folder


def files(root: Path, name: str) -> RunFiles:
    inputs = RunInputs(tables={name: str(root / f"tables/{name}.parquet")})
    return RunFiles(root / "runs/a/b/seed-1", cast(Run, None), root / "data/items.parquet", inputs)


@pytest.mark.parametrize("name", RECIPES)
def test_the_text_of_an_old_item_gives_its_row(name: str, root: Path) -> None:
    titles = dict(zip(*read_table(root / "data/items.parquet", "items").select(["item", "title"]).to_pydict().values(),
                      strict=True))  # fmt: skip
    told = [{"item": f"new-{n}", "title": titles[n], **dict(attributes_of(n))} for n in (5, 11, 14)]
    vectors, present = rows_of(files(root, name), read_products(pd.DataFrame(told)))[name]
    expected, _ = read_item_table(root / f"tables/{name}.parquet", 20)
    assert present.all()
    np.testing.assert_allclose(vectors, expected[[5, 11, 14]], rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    # which says something: other items stand elsewhere
    assert np.abs(vectors[0].numpy() - expected[6]).max() > 0.05 * np.abs(expected).max()


def test_the_order_of_columns_says_nothing(root: Path) -> None:
    """A model reads texts in the order that the catalogue tells them in, whatever that of the frame."""
    told = pd.DataFrame([{"item": "new", "title": "red lamp", **dict(attributes_of(5))}])
    assert len(told.columns) > 3  # there is an order
    one, other = (
        rows_of(files(root, "text"), read_products(frame))["text"][0] for frame in (told, told[told.columns[::-1]])
    )
    np.testing.assert_array_equal(one, other)


def test_one_order_is_made_of_those_of_all_items() -> None:
    orders = [("b",), (), ("a", "c"), ("a", "b", "d"), ("d", "e"), ("a", "c")]
    assert merged_order(orders) == ["a", "c", "b", "d", "e"]
    assert merged_order([("b", "a"), ("a", "b")]) == ["a", "b"]  # where they differ, always the same one


def test_orders_are_those_of_the_catalogue_item_by_item(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    told = [[(f"n{name}", "x") for name in rng.permutation(6)[: rng.integers(7)]] for _ in range(500)]
    items = pa.table(
        {"item": pa.array(range(1, 502), pa.int32()), "raw_id": [str(n) for n in range(501)], "title": [None] * 501,
         "attributes": pa.array([None, *told], pa.map_(pa.string(), pa.string())), "image": [None] * 501}
    )  # fmt: skip
    write_table(tmp_path / "items.parquet", items, "items")
    expected = merged_order([name for name, _ in pairs] for pairs in told)
    assert merged_order(orders_of(tmp_path / "items.parquet")) == expected
    new = read_products(pd.DataFrame({"item": ["a"], **{name: ["y"] for name in ("n0", "zz", "n3", "n1")}}))
    (pairs,) = in_order_of(tmp_path / "items.parquet", new).column("attributes").to_pylist()
    assert [name for name, _ in pairs] == [*(name for name in expected if name in ("n0", "n1", "n3")), "zz"]


def test_new_items_need_not_have_what_the_prompt_names(root: Path) -> None:
    _, present = rows_of(files(root, "sentences"), read_products(pd.DataFrame({"item": ["a"], "title": ["red lamp"]})))[
        "sentences"
    ]
    assert present.all()


def test_an_item_without_a_word_has_no_row(root: Path) -> None:
    frame = pd.DataFrame({"item": ["a", "b"], "title": ["red lamp", None]})
    vectors, present = rows_of(files(root, "text"), read_products(frame))["text"]
    assert present.tolist() == [True, False]
    assert not vectors[1].any()


@pytest.mark.parametrize("name", ["text", "pairs", "moca"])
def test_items_without_a_word_have_no_rows(name: str, root: Path) -> None:
    """One by one as among others: a single new item without a text is no error."""
    told = pd.DataFrame({"item": ["a", "b"], "title": [None, None]})
    vectors, present = rows_of(files(root, name), read_products(told))[name]
    assert present.tolist() == [False, False]
    assert vectors.shape[1] == read_item_table(root / f"tables/{name}.parquet", 20)[0].shape[1]


@pytest.mark.parametrize("recipe", ["captions", "image", "collaborative"])
def test_a_table_that_knows_no_new_item_is_nothing_beside_texts_and_refused_alone(
    recipe: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody captioned new items, or pictured them; a table of pictures alone ended with a file that nobody saw."""
    path = root / "tables/captions.parquet"
    if recipe != "captions":
        path, task = tmp_path / "other.parquet", {"recipe": recipe, "model": "clip"}
        vectors, there = read_item_table(root / "tables/captions.parquet", 20)
        settings = {"table": task, "model": {}, "prompt": {}} if recipe == "image" else {"recipe": recipe}
        write_item_table(path, np.flatnonzero(there), vectors[there], settings)
    both = {"text": str(root / "tables/text.parquet"), "other": str(path)}
    frame = read_products(pd.DataFrame({"item": ["a", "b"], "title": ["red lamp", "blue chair"]}))
    run = files(root, "text")
    found = rows_of(replace(run, inputs=RunInputs(tables=both)), frame)
    assert (found["text"][1].tolist(), found["other"][1].tolist()) == ([True, True], [False, False])
    assert "table 'other' says nothing of 2 of 2 new items" in caplog.text
    with pytest.raises(ValueError, match=r"table 'other' is of recipe \w+, which makes no row of an item that came"):
        rows_of(replace(run, inputs=RunInputs(tables={"other": str(path)})), frame)


def test_what_is_needed_and_not_there_is_named(root: Path, tmp_path: Path) -> None:
    away = tmp_path / "x"
    shutil.copytree(root, away)
    frame = read_products(pd.DataFrame({"item": ["a"], "title": ["red lamp"]}))
    shutil.rmtree(away / "embedders")
    with pytest.raises(ArtifactError, match=r"embedders/scft/model.safetensors: is not there"):
        rows_of(files(away, "scft"), frame)
    (away / "tables/text.finish.safetensors").unlink()
    with pytest.raises(ArtifactError, match="make the table again"):
        rows_of(files(away, "text"), frame)
