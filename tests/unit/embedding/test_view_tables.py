"""The tables of DMESR: captions alone, a vector an attribute, states of a model that is asked, rows dealt out anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tiny_language import WIDTH, tiny_model, write_catalogue

from tessera.artifacts.logs import log
from tessera.artifacts.sequences import read_item_sequences
from tessera.artifacts.tables import ArtifactError, read_item_table, read_table, write_table
from tessera.data.pictures import open_picture
from tessera.embedding import hidden as hidden_module
from tessera.embedding import recipe as recipe_module
from tessera.embedding.attributes import embed_attributes
from tessera.embedding.embed import embed, shuffled
from tessera.embedding.hidden import embed_hidden
from tessera.embedding.recipe import Rows
from tessera.embedding.task import Places, Task
from tessera.embedding.text import embed_text
from tessera.language.built import make_image_processor, make_model, save_built, train_tokenizer
from tessera.language.drawn import draw
from tessera.language.models import LanguageModel, LanguageModelError, load_model
from tessera.language.prompts import item_attributes
from tessera.settings.language import BuiltModel, ItemPrompt
from tessera.settings.recipes.attributes import AttributesTable
from tessera.settings.recipes.hidden import HiddenTable
from tessera.settings.recipes.text import TextTable

PROMPT = ItemPrompt(domain="lamp")


def write_captions(path: Path, texts: list[str | None]) -> Path:
    rows = {"item": list(range(1, len(texts) + 1)), "text": texts, "status": ["captioned"] * len(texts)}
    write_table(path, pa.table({**rows, "text": pa.array(texts, pa.string())}), "captions")
    return path


@torch.no_grad()
def states(model: LanguageModel, text: str) -> np.ndarray:
    """Mean of the last states of one text and the end token."""
    ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.end_token]
    found: np.ndarray = model.tower(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
    return found


# ---------------------------------------------------------------- captions alone


def test_captions_alone_tell_nothing_of_the_item_itself(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 5)
    said = {"said": write_captions(tmp_path / "c.parquet", ["a red lamp", None, "a blue chair", "", "a red lamp"])}
    table = TextTable(model="tiny", captions=["said"], only_captions=True)
    items, vectors = embed_text(table, PROMPT, tiny_model(), catalogue, said)
    assert items.tolist() == [1, 3, 5]  # without a caption there is nothing to read
    np.testing.assert_array_equal(vectors[0], vectors[2])
    expected = states(tiny_model(), "The lamp has the following attributes.\nsaid is a blue chair")
    np.testing.assert_allclose(vectors[1], expected, atol=2e-6)


def test_captions_that_are_all_empty_say_so(tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 3)
    said = {"said": write_captions(tmp_path / "c.parquet", ["", None, "  "])}
    table = TextTable(model="tiny", captions=["said"], only_captions=True)
    with pytest.raises(ValueError, match="no item has any text to read"):
        embed_text(table, PROMPT, tiny_model(), catalogue, said)
    with pytest.raises(ValidationError, match="only_captions: names no captions"):
        TextTable(model="tiny", only_captions=True)


# ---------------------------------------------------------------- a vector an attribute


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_every_attribute_is_read_alone(tmp_path: Path, batch_tokens: int) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 6)
    table = AttributesTable(model="tiny", batch_tokens=batch_tokens, most=4)
    items, names, vectors = embed_attributes(table, PROMPT, tiny_model(), catalogue, {})
    told = item_attributes(catalogue, PROMPT)
    expected = [(item, name, value) for item in sorted(told) for name, value in told[item][:4]]
    assert list(zip(items.tolist(), names, strict=True)) == [(item, name) for item, name, _ in expected]
    assert 4 not in items
    assert vectors.shape == (len(expected), WIDTH)
    for row, (_, name, value) in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(row, states(tiny_model(), f"{name} is {value}"), atol=2e-6)


def test_what_has_no_row_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Captions are told last, and were the first to go, without a word."""
    catalogue = write_catalogue(tmp_path / "items.parquet", 5)
    said = {"said": write_captions(tmp_path / "c.parquet", ["a red lamp", "blue", "a chair", "", "a lamp"])}
    table = AttributesTable(model="tiny", captions=["said"], most=3)
    with caplog.at_level("INFO", "tessera"):
        items, names, _ = embed_attributes(table, PROMPT, tiny_model(), catalogue, said)
    assert np.bincount(items).tolist() == [0, 3, 3, 2, 0, 3]  # of item 4 nothing is known
    assert names.count("said") == 1
    # title and five attributes, and a caption of each but item 3
    assert (
        "items have 3 attributes at most (`most`): 12 more of 3 items are left out (of 3 the caption said)"
        in caplog.text
    )
    caplog.clear()
    embed_attributes(AttributesTable(model="tiny", most=7), PROMPT, tiny_model(), catalogue, {})
    assert "left out" not in caplog.text


def test_a_cut_names_what_cuts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 5)
    reader = tiny_model()
    reader.context = 6
    with caplog.at_level("INFO", "tessera"):
        embed_attributes(AttributesTable(model="tiny"), PROMPT, reader, catalogue, {})
    assert "attributes are cut to 6 tokens" in caplog.text


def test_the_artifact_holds_the_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 6, shuffled=True)
    monkeypatch.setattr(recipe_module, "load_model", lambda *_: tiny_model())
    recipe = {"recipe": "attributes", "model": "tiny", "whiten": 0.0}
    output = tmp_path / "rows.parquet"
    for changes in ({}, {"shuffle": 2}):
        task = Task.model_validate(
            {"table": {**recipe, **changes}, "model": BuiltModel(built="qwen2.5-vl"), "prompt": PROMPT}
        )
        embed(task, Places(catalogue=str(catalogue), captions={}, model=None), output, tmp_path / "state", "")
        rows = read_item_sequences(output, 6)
        vectors, present = rows.dense(), rows.present
        told = item_attributes(catalogue, PROMPT)
        counts = {item: len(pairs) for item, pairs in told.items()}
        if not changes:
            plain = vectors
            assert present.sum(1).tolist() == [0, *(counts.get(item, 0) for item in range(1, 7))]
            names = [row["name"] for row in read_table(output, "item_sequences").to_pylist() if row["item"] == 5]
            assert names == [name for name, _ in told[5]]
    dealt = shuffled(np.arange(1, 7)[[0, 1, 2, 4, 5]], 2)
    for old, new in zip([1, 2, 3, 5, 6], dealt.tolist(), strict=True):
        np.testing.assert_array_equal(vectors[new], plain[old])


def test_shuffling_is_a_permutation_of_the_items_that_have_rows() -> None:
    items = np.array([2, 2, 5, 9, 9, 9])
    found = {seed: shuffled(items, seed) for seed in range(20)}
    for dealt in found.values():
        assert set(dealt) == {2, 5, 9}
        assert len(set(zip(items, dealt, strict=True))) == 3  # the rows of an item stay together
    assert len({tuple(dealt) for dealt in found.values()}) > 1
    np.testing.assert_array_equal(found[3], shuffled(items, 3))


# ---------------------------------------------------------------- states of a model that is asked


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    settings = BuiltModel(built="qwen2.5-vl", hidden=32, layers=1, vision_layers=1, heads=2, vocabulary=500)
    words = train_tokenizer(["title is Oak lamp; category is lamp", "a lamp in teal, pattern dots"] * 4, settings)
    torch.manual_seed(0)
    save_built(tmp_path / "model", make_model(settings, words), words, make_image_processor(settings))
    return load_model(settings, tmp_path / "model")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Five items: 2 has no picture, 3 a broken one, 4 no text."""
    (tmp_path / "pictures").mkdir()
    for number, drawing in enumerate(draw(3, 0, 5), 1):
        drawing.picture.save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "pictures" / "3.png").write_bytes(b"broken")
    titles = [None if item == 4 else f"Oak lamp No. {item}" for item in range(1, 6)]
    images = [None if item == 2 else f"{item}.png" for item in range(1, 6)]
    table = {
        "item": pa.array(range(1, 6), pa.int32()),
        "raw_id": [f"i{item}" for item in range(1, 6)],
        "title": pa.array(titles, pa.string()),
        "attributes": pa.array([[]] * 5, pa.map_(pa.string(), pa.string())),
        "image": pa.array(images, pa.string()),
    }
    write_table(tmp_path / "items.parquet", pa.table(table), "items", image_root=str(tmp_path / "pictures"))
    return tmp_path / "items.parquet"


@torch.no_grad()
def alone(model: LanguageModel, catalogue: Path, item: int, source: str) -> torch.Tensor:
    """The states of one item through the chat template and the processor of the model itself, spelled out."""
    asked = {"image": "Describe the item in this picture.", "text": "Describe this item by its attributes.",
             "both": "Describe this item by its picture and its attributes."}[source]  # fmt: skip
    if source != "image":
        asked += f"\nThe lamp has the following attributes.\ntitle is Oak lamp No. {item}"
    content: list[dict[str, str]] = [{"type": "image"}] if source != "text" else []
    said = [{"role": "user", "content": [*content, {"type": "text", "text": asked}]}]
    text = model.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    inputs: dict[str, Any] = {}
    full: Any = model.full
    if source != "text":
        assert model.image_processor is not None
        picture = open_picture(catalogue.parent / "pictures" / f"{item}.png")
        seen = model.image_processor(images=[picture], return_tensors="pt")
        text = text.replace("<|image_pad|>", "<|image_pad|>" * (int(seen["image_grid_thw"].prod()) // 4))
        inputs = {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    if inputs:
        inputs["mm_token_type_ids"] = (ids == full.config.image_token_id).int()
    states: torch.Tensor = full.model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).last_hidden_state
    return states[0]


@pytest.mark.parametrize(("source", "expected"), [("image", [1, 4, 5]), ("text", [1, 2, 3, 5]), ("both", [1, 5])])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_hidden_states_are_those_of_the_question(
    source: Any, expected: list[int], pooling: Any, model: LanguageModel, catalogue: Path
) -> None:
    for batch in (1, 4):
        table = HiddenTable(model="tiny", source=source, pooling=pooling, batch=batch)
        items, vectors = embed_hidden(table, PROMPT, model, catalogue, catalogue.parent / f"state-{batch}")
        assert items.tolist() == expected  # what an item lacks is no row, never a picture of zeros
        for item, row in zip(expected, vectors, strict=True):
            found = alone(model, catalogue, item, source)
            wanted = found.mean(0) if pooling == "mean" else found[-1]
            np.testing.assert_allclose(row, wanted.numpy(), atol=1e-5)


def test_a_catalogue_without_pictures_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    plain = write_catalogue(tmp_path / "plain.parquet", 4)
    with pytest.raises(LanguageModelError, match="no item has a picture"):
        embed_hidden(HiddenTable(model="tiny"), PROMPT, model, plain, tmp_path / "state")
    with pytest.raises(LanguageModelError, match="shows pictures, but the model is a decoder"):
        embed_hidden(HiddenTable(model="tiny"), PROMPT, tiny_model(), plain, tmp_path / "state")
    with pytest.raises(ValidationError, match="captions and states cannot be given"):
        HiddenTable(model="tiny", captions=["said"])


def test_a_catalogue_of_broken_pictures_is_refused(model: LanguageModel, catalogue: Path) -> None:
    for item in (1, 4, 5):
        (catalogue.parent / "pictures" / f"{item}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="no item could be shown by image: every picture is broken"):
        embed_hidden(HiddenTable(model="tiny"), PROMPT, model, catalogue, catalogue.parent / "state")


def test_pictures_of_items_without_a_text_are_not_called_broken(model: LanguageModel, catalogue: Path) -> None:
    kinds = pq.read_schema(catalogue).metadata
    rows = read_table(catalogue, "items").to_pylist()
    for row in rows:
        row["title"], row["attributes"] = (None, []) if row["image"] else (f"lamp {row['item']}", [])
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(catalogue)).replace_schema_metadata(kinds), catalogue)
    table = HiddenTable(model="tiny", source="both")
    pictures, texts = (sum(bool(row[name]) for row in rows) for name in ("image", "title"))
    words = f"shown by both: {pictures} items have a picture and {texts} a text, but none has both"
    with pytest.raises(ValueError, match=words):
        embed_hidden(table, PROMPT, model, catalogue, catalogue.parent / "state")


def test_one_picture_of_all_items_is_looked_for_among_the_pictures(
    model: LanguageModel, catalogue: Path, tmp_path: Path
) -> None:
    pictures = catalogue.parent / "pictures"
    for path in pictures.iterdir():
        if path.name != "1.png" and path.stat().st_size:
            path.write_bytes((pictures / "1.png").read_bytes())
    places = Places(catalogue=str(catalogue), captions={}, model=str(tmp_path / "model"))
    with pytest.raises(ArtifactError, match="look at the pictures and the model's image processor"):
        embed(hidden_task(source="image"), places, tmp_path / "t.parquet", tmp_path / "state", "")


def test_broken_pictures_are_named(
    model: LanguageModel, catalogue: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (catalogue.parent / "pictures" / "4.png").write_bytes(b"broken")
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", log.name)
    embed_hidden(HiddenTable(model="tiny"), PROMPT, model, catalogue, catalogue.parent / "state")
    assert "item 4: " in caplog.text
    assert "4.png: cannot be decoded" in caplog.text


def hidden_task(**changes: Any) -> Task:
    table = {"recipe": "hidden", "model": "tiny", "source": "both", **changes}
    return Task.model_validate({"table": table, "prompt": PROMPT, "model": BuiltModel(built="qwen2.5-vl")})


def test_a_hidden_table_is_an_item_table(model: LanguageModel, catalogue: Path, tmp_path: Path) -> None:
    places = Places(catalogue=str(catalogue), captions={}, model=str(tmp_path / "model"))
    embed(hidden_task(), places, tmp_path / "t.parquet", tmp_path / "state", "")
    _, present = read_item_table(tmp_path / "t.parquet", 5)
    assert present.nonzero()[0].tolist() == [1, 5]
    assert not any((tmp_path / "state").glob("*"))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty lamps of several sizes with texts of several lengths, one without a picture, one with a broken one."""
    generator = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir(exist_ok=True)
    images: list[str | None] = []
    for item in range(1, 41):
        side = 56 if item % 3 else 84
        Image.fromarray(generator.integers(0, 255, (side, side, 3), np.uint8)).save(tmp_path / f"pictures/{item}.png")
        images.append(None if item == 3 else f"{item}.png")
    (tmp_path / "pictures/20.png").write_bytes(b"broken")
    table = {
        "item": pa.array(range(1, 41), pa.int32()),
        "raw_id": pa.array([str(item) for item in range(1, 41)]),
        "title": pa.array([f"Oak lamp No. {item}" + " of oak" * (item % 7) for item in range(1, 41)], pa.string()),
        "attributes": pa.array([[]] * 40, pa.map_(pa.string(), pa.string())),
        "image": pa.array(images, pa.string()),
    }
    write_table(tmp_path / "many.parquet", pa.table(table), "items", image_root=str(tmp_path / "pictures"))
    return tmp_path / "many.parquet"


@pytest.mark.parametrize("later", [8, 16, 512])
def test_a_killed_hidden_table_goes_on_and_the_cut_changes_no_byte(
    later: int, model: LanguageModel, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(catalogue=str(many), captions={}, model=str(tmp_path / "model"))
    made = tmp_path / "whole.parquet"
    embed(hidden_task(batch=2), places, made, tmp_path / "state", "")
    assert read_item_table(made, 40)[1].sum() == 38
    real, asked = hidden_module._embed, list[int]()

    def dies(table: HiddenTable, shown: Any, items: list[int]) -> Any:
        if asked and asked[-1] >= 32:
            raise KeyboardInterrupt
        asked.extend(items)
        return real(table, shown, items)

    monkeypatch.setattr(hidden_module, "_embed", dies)
    output = tmp_path / "t.parquet"
    with pytest.raises(KeyboardInterrupt):
        embed(hidden_task(batch=2, shard=10), places, output, tmp_path / "state", "")
    assert not output.exists()
    monkeypatch.setattr(hidden_module, "_embed", real)
    again: list[int] = []
    monkeypatch.setattr(hidden_module, "_embed", lambda *given: again.extend(given[2]) or real(*given))
    embed(hidden_task(batch=2, shard=later), places, output, tmp_path / "state", "")
    assert (asked, again) == ([*range(1, 33)], [*range(33, 41)])  # what was made is not made again
    assert output.read_bytes() == made.read_bytes()
    assert not any((tmp_path / "state").glob("*"))


def test_a_damaged_shard_of_a_hidden_table_is_refused(
    model: LanguageModel, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, state = HiddenTable(model="tiny", batch=2, shard=16), tmp_path / "state"
    items, vectors = embed_hidden(table, PROMPT, model, many, state)
    shard = state / "shard-000000016-16.safetensors"
    whole = shard.read_bytes()
    for damaged in (whole[:-1], b"", whole.replace(b"vectors", b"letters"), (state / "shard-000000000-16.safetensors")):
        shard.write_bytes(damaged.read_bytes() if isinstance(damaged, Path) else damaged)
        with pytest.raises(ValueError, match=r"shard-000000016-16\.safetensors: is no shard of this table; remove it"):
            embed_hidden(table, PROMPT, model, many, state)
    shard.unlink()
    for again, before in zip(embed_hidden(table, PROMPT, model, many, state), (items, vectors), strict=True):
        np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize("recipe", ["text", "attributes", "scft", "lrcl", "crrl", "hidden"])
def test_a_table_that_tells_no_item_from_another_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    catalogue = write_catalogue(tmp_path / "items.parquet", 6)
    items = np.arange(1, 7)
    same = np.ones((6, 4), np.float32) + np.float32(1e-7) * np.arange(6, dtype=np.float32)[:, None]
    made = Rows(items, same, ["kind"] * 6 if recipe == "attributes" else None)
    # any recipe of a model whose tokenizer makes the same of every text
    monkeypatch.setattr(Task, "recipe", lambda *_: SimpleNamespace(rows=lambda: made))
    table = {"recipe": recipe, "model": "tiny"}
    task = Task.model_validate({"table": table, "model": BuiltModel(built="qwen2.5-vl"), "prompt": PROMPT})
    output = tmp_path / "t.parquet"
    given = Places(catalogue=str(catalogue), captions={}, model=None, embedder=str(catalogue))
    with pytest.raises(ArtifactError, match=r"t\.parquet: all 6 rows have the same vector.*nothing was written"):
        embed(task, given, output, tmp_path / "state", "")
    assert not output.exists()
