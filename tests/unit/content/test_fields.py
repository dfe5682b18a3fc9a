"""Content of fields: what stands in rows is what the catalogue says, cut and in order; bad input is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.content.fields import BETWEEN, FILES, PAD, START, FieldContent, cut_up, write_fields
from tessera.content.typed import TypedEncoder
from tessera.settings.base import ConfigError
from tessera.settings.ctr import ItemContent

TITLES = ["red lamp", "blue vase of glass", "", "small red vase", "lamp", "blue lamp"]
NOTES = ["a lamp that is red", "", "", "a vase", "x" * 90, "blue"]


def write_items(folder: Path, pictures: bool = True) -> Path:
    """Six items: the third has nothing to read, the fourth a picture that cannot be read."""
    rng = np.random.default_rng(0)
    names: list[str | None] = [f"{item}.png" if pictures and item not in (3, 5) else None for item in range(1, 7)]
    folder.mkdir(parents=True, exist_ok=True)
    for name in filter(None, names):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name)
    (folder / "4.png").write_bytes(b"no picture")
    columns = {
        "item": range(1, 7), "raw_id": list("abcdef"), "title": TITLES,
        "attributes": pa.array([[("note", n)] if n else [] for n in NOTES], pa.map_(pa.string(), pa.string())),
        "image": pa.array(names, pa.string()),
    }  # fmt: skip
    write_table(folder / "items.parquet", pa.table(columns), "items", image_root=str(folder))
    return folder / "items.parquet"


def content(folder: Path, pictures: bool = True, **keys: Any) -> FieldContent:
    settings = ItemContent.model_validate({"picture": 8, "patch": 4, "vocabulary": 300, **keys})
    write_fields(settings, write_items(folder, pictures), folder / "content")
    return FieldContent(folder / "content")


def test_rows_are_the_fields_in_their_order(tmp_path: Path) -> None:
    read = content(tmp_path, max_tokens=6)
    coder = Tokenizer.from_file(str(tmp_path / "content/tokenizer.json"))
    rows = read.rows(np.array([2, 1, 3, 0]))
    title, note = (coder.encode(text).ids[:6] for text in (TITLES[0], NOTES[0]))
    assert [token for token in rows.tokens[1].tolist() if token] == [START, *title, BETWEEN, *note]
    assert rows.fields[1, : 2 + len(title) + len(note)].tolist() == [0] + [1] * len(title) + [2] * (1 + len(note))
    assert coder.decode(title).strip() == TITLES[0]
    for empty in (2, 3):  # an item without content, and no item at all
        assert rows.tokens[empty].tolist() == [START] + [PAD] * (rows.tokens.shape[1] - 1)
    assert rows.pictured is not None
    assert rows.pictured.tolist() == [True, True, False, False]
    assert read.lengths(np.array([1, 3, 0])).tolist() == [2 + len(title) + len(note) + 4, 1, 1]
    first = read.rows(np.array([1]), first_field=True)
    assert first.tokens[0].tolist() == [START, *title]
    assert first.patches is None


def test_words_of_control_tokens_are_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TITLES", ["a [START] lamp [PAD] x [BETWEEN]", *TITLES[1:]])
    row = content(tmp_path, fields=["title"], picture=None).rows(np.array([1])).tokens[0].tolist()
    assert row[0] == START
    assert not {PAD, START, BETWEEN} & set(row[1:])


def test_the_first_field_is_one_that_items_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All queries of a catalogue without titles would be one."""
    catalogue = write_items(tmp_path, pictures=False)
    table = read_table(catalogue, "items").replace_schema_metadata(None)
    titles = table.schema.get_field_index("title")

    def names(some: list[str | None], **keys: Any) -> tuple[list[str], list[int]]:
        write_table(catalogue, table.set_column(titles, "title", pa.array(some, pa.string())), "items")
        write_fields(ItemContent(picture=None, vocabulary=300, **keys), catalogue, tmp_path / "content")
        read = FieldContent(tmp_path / "content")
        return read.names, (read.lengths(np.arange(1, 7), first_field=True) > 1).tolist()

    assert names([None] * 6) == (["note"], [bool(note) for note in NOTES])
    assert "the first field" not in caplog.text
    assert names(["", "", None, "", "", "lamp"]) == (["title", "note"], [False] * 5 + [True])
    assert "5 of 6 items have no 'title': the first field is all that a query reads" in caplog.text
    assert names([None] * 6, fields=["title"])[0] == ["title"]


def test_fields_are_chosen_and_cut(tmp_path: Path) -> None:
    read = content(tmp_path, fields=["note", "title"], tokens={"note": 2}, picture=None)
    coder = Tokenizer.from_file(str(tmp_path / "content/tokenizer.json"))
    row = read.rows(np.array([1])).tokens[0].tolist()
    assert row == [START, *coder.encode(NOTES[0]).ids[:2], BETWEEN, *coder.encode(TITLES[0]).ids]
    assert read.about["cut"]["note"] >= 2
    assert read.patches is None
    assert read.rows(np.array([1])).patches is None


def test_patches_are_cells_of_the_picture(tmp_path: Path) -> None:
    read = content(tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "2.png"), np.float32)
    rows = read.rows(np.array([2, 4]))
    assert rows.patches is not None
    cells = [pixels[y : y + 4, x : x + 4].reshape(-1) for y in (0, 4) for x in (0, 4)]
    np.testing.assert_allclose(rows.patches[0].numpy(), np.stack(cells) / 127.5 - 1, atol=1e-6)
    assert rows.pictured is not None
    assert not rows.pictured[1]  # its file is no picture
    assert (read.about["broken_pictures"], read.about["without_content"]) == (1, 1)
    assert cut_up(Image.new("RGB", (30, 10)), 8, 4).shape == (4, 48)


def test_the_same_catalogue_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        content(tmp_path / name)
    for name in FILES[1:]:
        assert (tmp_path / "a/content" / name).read_bytes() == (tmp_path / "b/content" / name).read_bytes()


def test_catalogue_without_pictures_has_none(tmp_path: Path) -> None:
    read = content(tmp_path, pictures=False)
    rows = read.rows(np.array([1, 2]))
    assert rows.patches is None
    assert rows.pictured is None
    assert torch.isfinite(TypedEncoder(read, 4, 8, 1, 2)(torch.tensor([1, 3]))).all()


def test_a_folder_of_pictures_that_is_gone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalogue = write_items(tmp_path / "data")
    write_fields(ItemContent(picture=8, patch=4, vocabulary=300), catalogue, tmp_path / "content")
    assert "1 of 4 pictures cannot be read" in caplog.text
    for name in (tmp_path / "data").glob("*.png"):
        name.unlink()
    catalogue.rename(tmp_path / "items.parquet")
    (tmp_path / "data").rmdir()
    gone = tmp_path / "gone"
    with pytest.raises(ArtifactError, match=r"data: no such folder; .*ctr.content reads them \(picture: null"):
        write_fields(ItemContent(picture=8, patch=4, vocabulary=300), tmp_path / "items.parquet", gone)
    assert not gone.exists(), "nothing is written"
    write_fields(ItemContent(picture=None, vocabulary=300), tmp_path / "items.parquet", gone)


def test_other_pictures_change_the_file_that_jobs_name(tmp_path: Path) -> None:
    """Snakemake compares that one alone: without the digests it would say the same of other pictures."""
    catalogue, settings = write_items(tmp_path / "data"), ItemContent(picture=8, patch=4, vocabulary=300)
    write_fields(settings, catalogue, tmp_path / "content")
    named = tmp_path / "content/content.json"
    before = named.read_bytes()
    write_fields(settings, catalogue, tmp_path / "content")
    assert named.read_bytes() == before
    for path in (tmp_path / "data").glob("*.png"):
        Image.new("RGB", (8, 8), "purple").save(path)
    write_fields(settings, catalogue, tmp_path / "content")
    assert named.read_bytes() != before
    assert json.loads(named.read_text()) | {"files": {}, "broken_pictures": 0} == json.loads(before) | {
        "files": {}, "broken_pictures": 0,
    }  # fmt: skip


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    read = content(tmp_path)
    with pytest.raises(ValueError, match="item 7 is not of the content, whose ids are 1 to 6"):
        read.rows(np.array([1, 7]))
    for key, wrong in (("fields", ["titel"]), ("tokens", {"titel": 4})):
        with pytest.raises(ConfigError, match=f"ctr.content.{key}: no item has the attribute 'titel'.*title"):
            content(tmp_path / key, **{key: wrong})
    with pytest.raises(ValueError, match="picture 10 is no multiple of patch 4"):
        ItemContent(picture=10, patch=4)
    with pytest.raises(ValueError, match="tokens: 'note' is not read"):
        ItemContent(fields=["title"], tokens={"note": 3})
    (tmp_path / "content/first.npy").unlink()
    with pytest.raises(ArtifactError, match=r"first.npy: no such file"):
        FieldContent(tmp_path / "content")
    other = content(tmp_path / "other").about
    assert json.loads((tmp_path / "other/content/content.json").read_text()) == other


# ---------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> FieldContent:
    return content(tmp_path_factory.mktemp("content"))


def encoder(read: FieldContent, **keys: Any) -> TypedEncoder:
    torch.manual_seed(0)
    return TypedEncoder(read, 5, 8, 2, 2, **keys)


def test_vectors_depend_on_no_other_item_and_no_padding(read: FieldContent) -> None:
    model = encoder(read)
    asked = torch.tensor([4, 2, 1, 4, 3, 5, 0])
    together = model(asked)
    torch.testing.assert_close(together, torch.cat([model(one[None]) for one in asked]), atol=1e-6, rtol=1e-5)
    model.batch_tokens = 1
    torch.testing.assert_close(model(asked), together, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together[4], together[6])  # nothing to read is nothing to read
    assert (together[0] - together[4]).abs().max() > 1e-3
    assert model(asked[:0]).shape == (0, 5)


def test_no_batch_has_more_padded_tokens_than_asked_for(read: FieldContent) -> None:
    """Items without a picture are not padded with one, and say what they say beside blank patches that are masked."""
    model = encoder(read).eval()
    asked = torch.tensor([1, 3, 5, 0, 2, 3, 4, 6, 0, 3, 5])
    model.batch_tokens = int(read.lengths(asked.numpy()).max())
    sizes: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[0] * inputs[0].shape[1]))
    vectors = model(asked)
    assert max(sizes) <= model.batch_tokens
    assert sum(sizes) >= model.count_tokens(asked)
    for item, vector in zip(asked, vectors, strict=True):
        rows = read.rows(item[None].numpy())
        if rows.patches is None:
            blank = torch.zeros(1, *(read.patches or (0, 0)))
            rows = type(rows)(rows.tokens, rows.fields, blank, torch.tensor([False]))
        torch.testing.assert_close(vector, model.read(rows)[0], atol=1e-6, rtol=1e-5)


def test_every_token_field_and_patch_is_read(read: FieldContent) -> None:
    model = encoder(read).eval()
    rows = read.rows(np.array([1]))
    before = model.read(rows)
    assert rows.patches is not None
    last = rows.tokens.clone()
    last[0, -1] += 1
    kinds = rows.fields.clone()
    kinds[0, -1] = 1
    seen = rows.patches.clone()
    seen[0, -1, -1] += 0.5
    for other in (
        type(rows)(last, rows.fields, rows.patches, rows.pictured),
        type(rows)(rows.tokens, kinds, rows.patches, rows.pictured),
        type(rows)(rows.tokens, rows.fields, seen, rows.pictured),
    ):
        assert (model.read(other) - before).abs().max() > 1e-6


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_gradients_are_the_gradients(read: FieldContent, dropout: float) -> None:
    """In batches of one or two items; dropout draws the same again."""
    gradients = []
    for recompute in (False, True):
        model = encoder(read, dropout=dropout, batch_tokens=40, recompute=recompute).train()
        torch.manual_seed(3)
        vectors = model(torch.tensor([1, 2, 4, 6, 5]))
        torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1).tanh().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert torch.equal(gradient, gradients[1][name]), name  # type: ignore[arg-type]
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0].values() if gradient is not None)


def test_recomputing_keeps_no_activations(read: FieldContent) -> None:
    kept = {}
    for recompute in (False, True):
        model = encoder(read, batch_tokens=40, recompute=recompute).train()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.tensor([1, 2, 4, 6, 5]))
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False] / 20
