"""Items that came after training: placed by their rows in the tables of a run, and by nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from pattern import ITEMS, make_run, write_dataset, write_interests_of

import tessera
from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import read_item_table, read_table, write_item_table
from tessera.data.vectors import vectors_of_new
from tessera.recommenders.train import train_run
from tessera.serving import recommender
from tessera.serving.catalogue import Catalogue
from tessera.serving.everyone import recommend_everyone
from tessera.serving.folder import run_files
from tessera.serving.new_items import new_to, read_file, read_products
from tessera.serving.recommender import KnownItems, Recommender
from tessera.settings.recipes.vectors import VectorsTable
from tessera.settings.recommend import Recommend
from tessera.settings.sources.base import ItemsFile

SYSTEMS: dict[str, Any] = {
    "table": {"items": {"table": "t", "adapter": [8]}},
    "plain": {"items": {"table": "t", "adapter": [], "standardize": False}},
    "with_offsets": {"items": {"table": "t", "adapter": [8], "id_residual": True}},
    "pad": {"recommender": "pad", "table": "t", "adapter": [8]},
    "findrec": {"recommender": "findrec", "text": "t", "width": 8},
    "tpad": {"recommender": "tpad", "text": "t", "disentangling": {"width": 4, "hidden": 8, "steps": 5}},
    "eimf": {"recommender": "eimf", "interests": "w", "items": {"table": "t", "adapter": [8]}, "dim": 16},
    "cider": {"recommender": "cider", "items": {"table": "t", "adapter": [8]}, "counterfactual": {"tau": 0.4}},
    "markov_mixture": {
        "recommender": "markov_mixture", "base": {"items": {"table": "t", "adapter": [8]}}, "similar": {"table": "t"},
        "weight": 0.2, "strength": 2.0,
    },
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "adapter": [8]},
    "ids": {"items": "ids"},
    "popular": {"recommender": "popular"},
    "markov": {"recommender": "markov"},
}  # fmt: skip
CAN = ["table", "plain", "with_offsets", "pad", "tpad", "eimf", "i3_mrec", "cider", "markov_mixture"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "results/x"
    write_dataset(root / "data")
    numbers = np.arange(1, ITEMS + 1)
    rows = np.random.default_rng(1).normal(size=(ITEMS, 6)).astype(np.float32) * 3 + 1
    write_item_table(root / "tables/t.parquet", numbers, rows, {"recipe": "collaborative"})
    write_interests_of(root / "tables/w.parquet", range(2, 60, 3))
    for name, system in SYSTEMS.items():
        run = make_run(system=system, epochs=2)
        folder = root / "runs" / name / run.recommender / "seed-1"
        folder.mkdir(parents=True)
        write_model(folder / "model.safetensors", {"x": torch.zeros(1)}, {"run": run.model_dump(mode="json")})
        train_run(run, root / "data", run_files(folder).inputs, folder / "model.safetensors", root.parent / "state")
    return root


def loaded(results: Path, name: str) -> Recommender:
    (found,) = (results / "runs" / name).glob("*/seed-1")
    return tessera.load(found, device="cpu")


def products(*ids: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"item": ids, "title": [f"New {raw}" for raw in ids], "brand": ["Acme", None, "Bolt"][: len(ids)]}
    )


def rows(results: Path, *items: int) -> np.ndarray:
    return read_item_table(results / "tables/t.parquet", ITEMS)[0][list(items)]


def test_a_new_item_with_the_row_of_an_old_one_is_scored_like_it(results: Path) -> None:
    for name in ("table", "plain"):
        shop = loaded(results, name)
        wider = shop.with_items(products("new-5", "new-9"), {"t": rows(results, 5, 9)}, device="cpu")
        history = ["i1", "i2", "i3"]
        before = shop.recommend(history, k=100, seen=True).set_index("item")["score"]
        after = wider.recommend(history, k=100, seen=True).set_index("item")["score"]
        assert len(after) == ITEMS + 2
        np.testing.assert_allclose(after[before.index], before, rtol=1e-5, atol=1e-6)
        for new, old in (("new-5", "i5"), ("new-9", "i9")):
            assert after[new] == pytest.approx(after[old], rel=1e-5, abs=1e-6)
        # and read in a history like it
        one, other = (wider.recommend(["i1", raw], k=5, seen=True) for raw in ("new-5", "i5"))
        np.testing.assert_allclose(one.score, other.score, rtol=1e-5, atol=1e-6)
        assert wider.similar("new-9", 1).item.tolist() == ["i9"]


def test_an_offset_that_nobody_trained_is_none(results: Path) -> None:
    shop = loaded(results, "with_offsets")
    wider = shop.with_items(products("new"), {"t": rows(results, 5)}, device="cpu")
    items = wider.scorer.model.items  # type: ignore[attr-defined]
    adapted = items.adapter(items.table)[-1]
    torch.testing.assert_close(wider.scorer.item_vectors[-1], adapted)  # type: ignore[attr-defined]


def test_what_a_table_does_not_say_is_absent_and_told(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = rows(results, 5, 9)
    given[1] = np.nan
    wider = loaded(results, "table").with_items(products("a", "b"), {"t": given}, device="cpu")
    assert "table 't' says nothing of 1 of 2 new items" in caplog.text
    vectors = wider.scorer.item_vectors  # type: ignore[attr-defined]
    # training met no item without a row, so nothing was learned for one: the mean of all that have one stands there
    torch.testing.assert_close(vectors[-1], vectors[:-1].mean(0))


def test_titles_attributes_and_stock_lists_know_them(results: Path) -> None:
    wider = loaded(results, "table").with_items(products("a", "b"), {"t": rows(results, 5, 9)}, device="cpu")
    found = wider.recommend(["i1"], items=["a", "b", "i3"], k=5)
    assert set(found.item) == {"a", "b", "i3"}
    assert found.set_index("item").title["a"] == "New a"
    assert wider.recommend(["i1"], attribute={"brand": "Acme"}).item.tolist() == ["a"]
    assert wider.recommend(["a", "b"], k=3).item.isin(wider.catalogue.raw_ids).all()


def test_a_cell_says_what_it_says_in_a_file_of_items(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "item": ["a", "b", "c"], "title": ["<b>Lamp</b> &amp; co", "x", None], "organic": [True, False, None],
        "tags": [["red", "wide"], [], None], "parts": [{"shade": ["a", "b"]}, None, {"foot": ["c"]}],
        "price": [3.0, None, 0.5],
    })  # fmt: skip
    names = ["organic", "tags", "parts", "price"]
    frame.to_parquet(tmp_path / "new.parquet")
    settings = ItemsFile(path=str(tmp_path / "new.parquet"), id="item", title="title", text=names)
    expected = read_products(read_file(settings))
    assert dict(expected.column("attributes").to_pylist()[0])["organic"] == "yes"
    for given in (frame, pd.read_parquet(tmp_path / "new.parquet")[frame.columns]):
        assert read_products(given).equals(expected)


def test_an_attribute_is_asked_for_as_it_stands_in_a_frame(results: Path) -> None:
    told = products("a", "b").assign(organic=[True, False])
    wider = loaded(results, "table").with_items(told, {"t": rows(results, 5, 9)}, device="cpu")
    assert wider.recommend(["i1"], attribute={"organic": True}).item.tolist() == ["a"]
    assert wider.recommend(["i1"], attribute={"organic": [True, "no"]}).item.sort_values().tolist() == ["a", "b"]


def test_popular_items_are_never_new(results: Path) -> None:
    wider = loaded(results, "table").with_items(products("a"), {"t": rows(results, 5)}, device="cpu")
    with pytest.warns(UserWarning, match="popular items"):
        assert wider.recommend([], k=ITEMS + 1).item.tolist()[-1] == "a"


def test_new_items_are_scored_where_the_run_is(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    shop, load = loaded(results, "table"), recommender.load_from
    monkeypatch.setattr(recommender, "load_from", lambda files, device: (asked.append(device), load(files, "cpu"))[1])
    shop.with_items(products("a"), {"t": rows(results, 5)})
    shop.with_items(products("a"), {"t": rows(results, 5)}, device="auto")
    assert asked == ["cpu", "auto"]


def test_the_run_that_was_loaded_stays_as_it_was(results: Path) -> None:
    shop = loaded(results, "table")
    before = shop.recommend(["i1"], k=100)
    shop.with_items(products("a"), {"t": rows(results, 5)}, device="cpu")
    assert shop.recommend(["i1"], k=100).equals(before)


def test_items_that_are_known_stay_as_they_are(results: Path) -> None:
    shop = loaded(results, "table")
    with pytest.warns(KnownItems, match="already in the catalogue: 'i3'; left as they are"):
        wider = shop.with_items(products("i3", "a"), {"t": rows(results, 5, 9)}, device="cpu")
    assert len(wider.catalogue) == ITEMS + 1
    scores = wider.recommend(["i1"], k=100, seen=True).set_index("item").score
    assert scores["a"] == pytest.approx(scores["i9"], rel=1e-5)
    assert wider.catalogue.titles[3] == "Item 3"
    with pytest.warns(KnownItems, match="'i3', 'i4'"):  # and nothing else
        same = shop.with_items(products("i3", "i4"), {"t": rows(results, 5, 9)}, device="cpu")
    assert same.recommend(["i1"], k=5).equals(shop.recommend(["i1"], k=5))


def test_ids_of_products_are_those_of_the_catalogue(tmp_path: Path) -> None:
    catalogue = Catalogue(Path("x"), ["", "901", "902.0"], [""] * 3, np.ones(3, np.int64))
    (tmp_path / "new.csv").write_text("sku,name\n901.0,a\n903.0,b\n")
    for frame in (
        pd.DataFrame({"item": [901.0, 903.0]}),
        read_file(ItemsFile(path=str(tmp_path / "new.csv"), id="sku", title="name")),
    ):
        given = read_products(frame)
        items, new = new_to(catalogue, given)
        assert given.column("raw_id").to_pylist() == ["901", "903"]
        assert (items.column("raw_id").to_pylist(), items.column("item").to_pylist()) == (["903"], [1])
        assert new.tolist() == [False, True]
    _, new = new_to(catalogue, read_products(pd.DataFrame({"item": ["902", " x ", "901.0", "1.50"]})))
    assert new.tolist() == [False, True, False, True]
    assert read_products(pd.DataFrame({"item": [" x ", "901.0"]})).column("raw_id").to_pylist() == ["x", "901.0"]


def test_rows_are_one_a_product(results: Path) -> None:
    shop = loaded(results, "table")
    with (
        pytest.warns(KnownItems),
        pytest.raises(ValueError, match=r"vectors of table 't': expected 2 rows, one a product \(got \(1, 6\)\)"),
    ):
        shop.with_items(products("i3", "a"), {"t": rows(results, 9)}, device="cpu")


def test_attributes_of_products_are_read_as_those_of_files() -> None:
    tags = [["x", "y", "x"], np.array(["z"]), None, float("nan"), pd.NA, [], " a  b ", 3]
    ids = [f"a{number}" for number in range(len(tags))]
    items = read_products(pd.DataFrame({"item": ids, "tags": pd.Series(tags, dtype=object)}))
    said = [dict(pairs).get("tags") for pairs in items.column("attributes").to_pylist()]
    assert said == ["x, y", "z", None, None, None, None, "a b", "3"]


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in CAN])
def test_who_cannot_says_so(name: str, results: Path) -> None:
    with pytest.raises(ValueError, match=r"a new item cannot be placed: what the system knows .* comes from training"):
        loaded(results, name).with_items(products("a"), device="cpu")


def test_what_is_wrong_is_told(results: Path, tmp_path: Path) -> None:
    shop = loaded(results, "table")
    for vectors, words in (
        ({"u": rows(results, 5)}, r"reads no table 'u' \(it reads: t\)"),
        ({"t": rows(results, 5)[:, :4]}, r"table 't': expected rows of shape \(1, 6\) \(got \(1, 4\)\)"),
        ({"t": [["a"]]}, "vectors of table 't': expected numbers, as many a product as the table has"),
        ({"t": [[1.0], [1.0, 2.0]]}, "vectors of table 't': expected numbers, as many a product as the table has"),
        ({}, "table 't' is of recipe collaborative, which makes no row of an item that came after training; give"),
    ):
        with pytest.raises(ValueError, match=words):
            shop.with_items(products("a"), vectors, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"new items: expected a pandas DataFrame with .* \(got list\)"):
        shop.with_items([{"item": "a"}])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"\(got polars.DataFrame\)"):
        shop.with_items(pl.from_pandas(products("a")))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"vectors: expected rows by the name of a table, .* \(got ndarray\)"):
        shop.with_items(products("a"), rows(results, 5))  # type: ignore[arg-type]
    for frame, words in (
        (pd.DataFrame({"id": ["a"]}), r"expected a column 'item' with their ids \(got id\)"),
        (pd.DataFrame({"item": ["a", None]}), "row 1 has no id"),
        (pd.DataFrame({"item": ["a", " "]}), "row 1 has no id"),
        (pd.DataFrame({"item": ["a", "nan"]}), "row 1 has no id"),
        (pd.DataFrame({"item": [1.0, float("nan")]}), r"row 1 has no id \(got nan, expected a text or a number\)"),
        (pd.DataFrame({"item": [True, "1"]}), r"row 0 has no id \(got True, expected a text or a number\)"),
        (pd.DataFrame({"item": [901, 901.0]}, dtype=object), "'901' stands 2 times"),
        (pd.DataFrame({"item": ["a", "b", "a"]}), "'a' stands 2 times"),
    ):
        with pytest.raises(ValueError, match=words):
            read_products(frame)
    wider = shop.with_items(products("a"), {"t": rows(results, 5)}, device="cpu")
    with pytest.raises(ValueError, match="were added already"):
        wider.with_items(products("b"), {"t": rows(results, 5)}, device="cpu")
    with pytest.raises(ValueError, match="came after training are not kept"):
        wider.save(tmp_path / "saved")


@pytest.fixture
def shop(results: Path, tmp_path: Path) -> Path:
    """The same run on a table of recipe `vectors`, whose file has a row of one item more."""
    root = tmp_path / "results/x"
    shutil.copytree(results, root)
    vectors, _ = read_item_table(results / "tables/t.parquet", ITEMS)
    source = tmp_path / "v.parquet"
    ids = [*(f"i{n}" for n in range(1, ITEMS + 1)), "late"]
    pd.DataFrame({"raw_id": ids, "embedding": list(np.concatenate([vectors[1:], vectors[5:6]]))}).to_parquet(source)
    settings = {"recipe": "vectors", "path": str(source)}
    write_item_table(root / "tables/t.parquet", np.arange(1, ITEMS + 1), vectors[1:], settings)
    description = root / "runs/table/sasrec/seed-1/model.json"
    write_json(description, read_json(description) | {"inputs": {}})
    return root


def test_a_file_of_vectors_is_looked_up(shop: Path) -> None:
    """The row of a new id in the very file that the table was made of; of others nothing is known."""
    wider = loaded(shop, "table").with_items(products("late", "later"), device="cpu")
    scores = wider.recommend(["i1"], k=100, seen=True).set_index("item").score
    assert scores["late"] == pytest.approx(scores["i5"], rel=1e-5)


def test_a_file_that_knows_none_of_them_says_nothing(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = loaded(shop, "table")
    wider = run.with_items(products("later"), device="cpu")
    assert "table 't' says nothing of 1 of 1 new items" in caplog.text
    assert "later" in set(wider.recommend(["i1"], k=100).item)


def test_a_row_without_a_vector_says_nothing(shop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = pd.read_parquet(tmp_path / "v.parquet")
    table.loc[table.raw_id == "late", "embedding"] = None
    table.to_parquet(tmp_path / "v.parquet")
    loaded(shop, "table").with_items(products("late"), device="cpu")
    assert "table 't' says nothing of 1 of 1 new items" in caplog.text


def test_numbers_of_the_items_of_training_are_no_ids_of_new_ones(shop: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(tmp_path / "v.parquet")
    table.assign(item=range(1, len(table) + 1)).drop(columns="raw_id").to_parquet(tmp_path / "v.parquet")
    with pytest.raises(ValueError, match="keyed by 'item', the numbers of the items of training"):
        loaded(shop, "table").with_items(products("late", "later"), device="cpu")


def test_rows_of_an_array_are_those_of_their_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.arange(12.0).reshape(4, 3))
    chosen, vectors = vectors_of_new(VectorsTable(path="v.npy"), tmp_path / "v.npy", ["x", "3", "9", "0"])
    assert chosen.tolist() == [1, 3]
    assert vectors.tolist() == [[9, 10, 11], [0, 1, 2]]


def everyone(root: Path, name: str, **settings: Any) -> pd.DataFrame:
    (folder,) = (root / "runs" / name).glob("*/seed-1")
    files = run_files(folder)
    recommend_everyone(
        files.run, Recommend.model_validate(settings), files.model, root / "data", files.inputs, None, None,
        root / "lists.parquet", root / "lists.csv",
    )  # fmt: skip
    return read_table(root / "lists.parquet", "recommendations").to_pandas()


def test_lists_for_all_users_hold_new_items(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shop / "new.csv").write_text(
        "sku,name,brand\nlate,Late one,Acme\ni3,Known,Bolt\nlate,Again,\n,No id,x\n" + "i4,,\n" * 40
    )
    new = {"path": str(shop / "new.csv"), "id": "sku", "title": "name", "text": ["brand"]}
    with caplog.at_level("INFO"):
        found = everyone(shop, "table", k=ITEMS + 1, seen=True, new_items=new)
    assert "1 of 3 items came after training" in caplog.text
    assert "1 rows cannot be read (id is missing: 1)" in caplog.text
    before = everyone(shop, "table", k=ITEMS + 1, seen=True)
    assert set(found.groupby("user").size()) == {ITEMS + 1}
    for user, own in found.groupby("user"):
        score = own.set_index("item").score
        assert score["late"] == pytest.approx(score["i5"], rel=1e-5)
        kept = own[own.item != "late"].set_index("item").score
        pd.testing.assert_series_equal(kept, before[before.user == user].set_index("item").score[kept.index], rtol=1e-4)
    assert set(found[found.item == "late"].title) == {"Late one"}
    assert set(everyone(shop, "table", new_items=new, attribute={"brand": "Acme"}).item) == {"late"}


def test_lists_of_a_system_that_cannot_are_refused(shop: Path) -> None:
    (shop / "new.csv").write_text("sku\nlate\n")
    with pytest.raises(ValueError, match="s: a new item cannot be placed"):
        everyone(shop, "ids", new_items={"path": str(shop / "new.csv"), "id": "sku"})
    assert not (shop / "lists.parquet").exists()
    (shop / "new.csv").write_text("sku\n")
    with pytest.raises(ValueError, match=r"holds no item with an id in 'sku' \(recommend\.new_items\.id\)"):
        everyone(shop, "table", new_items={"path": str(shop / "new.csv"), "id": "sku"})
