"""SCFT and LRCL: they learn, only what they should, the same with any batching and processes; to disk and back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_language import attributes_of, tiny_model, write_catalogue, write_data

from forked_processes import share
from same_training import assert_same_training
from tessera.artifacts.files import read_json
from tessera.artifacts.logs import Terminated, log
from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.embedding import contrastive
from tessera.embedding.contrastive import ContrastiveRecipe, ContrastiveTraining, ItemBatches
from tessera.embedding.embedder import Embedder, load_embedder, save_embedder
from tessera.embedding.pairs import PairTraining
from tessera.embedding.recipe import Given, Items, Vectors
from tessera.embedding.text import told_items
from tessera.embedding.tune import train as run_training
from tessera.language.lora import add_lora, lora_weights, merge_lora
from tessera.language.models import LanguageModel
from tessera.settings.kinds import implementation
from tessera.settings.language import ItemPrompt
from tessera.settings.lora import LoRA
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.pairs import PairsTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.settings.training import Steps
from tessera.training.errors import TrainingError
from tessera.training.machine import Machine

torch.set_num_threads(1)
PROMPT = ItemPrompt(domain="household item")
Contrastive = SCFTTable | LRCLTable | PairsTable
STEPS: dict[str, Any] = {"steps": 6, "batch": 8, "learning_rate": 5e-3, "device": "cpu", "checkpoint_seconds": 600}


def table(recipe: str, training: dict[str, Any] | None = None, **settings: Any) -> Contrastive:
    kind: type[Contrastive] = {"scft": SCFTTable, "lrcl": LRCLTable, "pairs": PairsTable}[recipe]
    steps = Steps(**{**STEPS, **(training or {})})
    found: Contrastive = kind.model_validate({"model": "tiny", "training": steps, **settings})
    return found


def train(folder: Path, settings: Contrastive, model: LanguageModel | None = None, data: Path | None = None) -> Path:
    data = data or write_data(folder / "data")
    output = folder / "embedder" / "model.safetensors"
    recipe = made(settings, data / "items.parquet", None, data, model)
    run_training(recipe, output, folder / "state", Machine(settings.training))
    return output


def made(
    settings: Contrastive, catalogue: Path, embedder: Path | None, data: Path = Path(),
    model: LanguageModel | None = None,
) -> ContrastiveRecipe:  # fmt: skip
    """The recipe, as a job makes it."""
    given = Given(PROMPT, model or tiny_model(), catalogue, {}, data, embedder)
    recipe: ContrastiveRecipe = implementation(settings)(settings, given)
    return recipe


def embed(
    settings: Contrastive, catalogue: Path, embedder: Path, model: LanguageModel | None = None
) -> tuple[Items, Vectors]:
    """Ids and vectors of what is embedded."""
    items, vectors = made(settings, catalogue, embedder, model=model).rows()[:2]
    return items, vectors


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["scft", "lrcl"])
def test_it_learns_to_tell_items_apart(recipe: str, tmp_path: Path) -> None:
    loss = {"normalize": True, "temperature": 0.1, "targets": "identity"}
    settings = table(recipe, {"steps": 40, "batch": 18}, loss=loss, drop=0.2)
    model = tiny_model()
    before = copy.deepcopy(model.full.state_dict())
    output = train(tmp_path, settings, model)
    rows = history(output)
    first, last = rows[:5], rows[-5:]
    mean = lambda part, name: float(np.mean([row[name] for row in part]))  # noqa: E731
    assert mean(last, "loss") < mean(first, "loss") - 0.5
    assert mean(last, "accuracy") > mean(first, "accuracy") + 0.1
    assert rows[-1]["temperature"] != rows[0]["temperature"]
    # the model itself is as it was
    after = {name.replace(".base_layer", ""): value for name, value in model.full.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    tensors = read_tensors(output)
    assert {name.split("/")[0] for name in tensors} == {"lora", "temperature"} | (
        {"attention"} if recipe == "lrcl" else set()
    )
    assert all(value.dtype == torch.float32 and value.abs().max() > 0 for value in tensors.values())
    told = read_json(output.with_suffix(".json"))
    assert (told["recipe"], told["items"], told["settings"]["drop"]) == (recipe, 18, 0.2)
    assert not (tmp_path / "state" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    "settings",
    [table("scft"), table("pairs"), table("lrcl"), table("lrcl", thoughts=2), table("lrcl", thoughts=0)],
    ids=lambda s: f"{s.recipe}",
)
def test_what_is_read_from_disk_is_what_was_trained(settings: Contrastive, tmp_path: Path) -> None:
    trained = tiny_model()
    output = train(tmp_path, settings, trained)
    catalogue = tmp_path / "data" / "items.parquet"
    items, vectors = embed(settings, catalogue, output)
    assert items.tolist() == [1, 2, 3, *range(5, 21)]
    assert np.isfinite(vectors).all()
    # adapters beside the weights, as they were trained, one item at a time
    recipe = made(settings, catalogue, output)
    embedder = recipe.load(merge=False)
    assert all(torch.equal(weight, embedder.adapters[name]) for name, weight in lora_weights(trained.tower).items())
    encoder = recipe.encoder(embedder.attention).eval()
    told, _ = told_items(catalogue, PROMPT, {})
    frame, words = recipe.frame(), recipe.given.model.tokenizer
    for place in (0, 2, 18):
        text = "; ".join(f"{name} is {value}" for name, value in told[int(items[place])])
        ids = [*frame.before, *words(text, add_special_tokens=False)["input_ids"], *frame.after]
        with torch.no_grad():
            alone = encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))[0]
        np.testing.assert_allclose(vectors[place], alone.numpy(), atol=1e-5)
    # and another row order of the catalogue
    shuffled = write_catalogue(tmp_path / "shuffled.parquet", shuffled=True)
    again = embed(settings, shuffled, output)
    np.testing.assert_array_equal(again[0], items)
    np.testing.assert_array_equal(again[1], vectors)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    found = [train(tmp_path / name, table("lrcl", {"seed": seed})) for name, seed in [("a", 1), ("b", 1), ("c", 2)]]
    first, second, third = (path.read_bytes() for path in found)
    assert first == second != third


@pytest.mark.parametrize(("recipe", "kind"), [("lrcl", ContrastiveTraining), ("pairs", PairTraining)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    recipe: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "a", table(recipe)).read_bytes()
    plain = kind.losses

    def stopped(self: Any, items: Any, step: int) -> Any:
        if step == 4:
            raise Terminated
        return plain(self, items, step)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "losses", stopped)
        with pytest.raises(Terminated):
            train(tmp_path / "b", table(recipe))
    assert (tmp_path / "b" / "state" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "b" / "embedder" / "model.safetensors").exists()
    assert train(tmp_path / "b", table(recipe)).read_bytes() == whole


def test_soft_targets_that_tell_nothing_apart_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    soft = {"normalize": True, "targets": "attached", "temperature": 1.0}
    for loss, uniform in ((soft, True), ({"temperature": 0.01}, False)):
        caplog.clear()
        train(tmp_path / str(uniform), table("scft", loss=loss))
        assert ("soft targets are uniform" in caplog.text) == uniform


@pytest.mark.parametrize("recipe", ["scft", "lrcl", "pairs"])
def test_memory_saved_changes_no_number(recipe: str, tmp_path: Path) -> None:
    """Small batches within a step, and states computed again with the same dropout."""
    kept = read_tensors(train(tmp_path / "a", table(recipe, batch_tokens=400)))
    again = read_tensors(train(tmp_path / "b", table(recipe, batch_tokens=400, recompute=True)))
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, atol=1e-6, rtol=1e-5)
    still = {"lora": LoRA(dropout=0)}
    whole = read_tensors(train(tmp_path / "c", table(recipe, batch_tokens=10**6, **still)))
    parts = read_tensors(train(tmp_path / "d", table(recipe, batch_tokens=100, **still)))
    assert_same_training(whole, parts, 5e-3)


def _member(folder: Path, data: Path, processes: int, recipe: str) -> None:
    torch.set_num_threads(1)
    settings = table(recipe, {"processes": processes}, lora={"dropout": 0.0})
    machine = Machine(settings.training)
    own = made(settings, data / "items.parquet", None, data)
    run_training(own, folder / "model.safetensors", folder / "state", machine)
    kept = Embedder(lora_weights(own.given.model.tower), settings.lora, own.thinking, None, {})
    save_embedder(folder / f"rank{machine.rank}" / "model.safetensors", kept)


@pytest.mark.parametrize("recipe", ["lrcl", "pairs"])
def test_two_processes_are_one(recipe: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for name, number in (("one", 1), ("two", 2)):
        share(number, _member, tmp_path / name, data, number, recipe)
    ranks = [read_tensors(tmp_path / "two" / f"rank{rank}" / "model.safetensors") for rank in (0, 1)]
    assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    one, two = (read_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert_same_training(one, two, 5e-3)
    assert history(tmp_path / "one" / "model.safetensors")[-1]["loss"] == pytest.approx(
        history(tmp_path / "two" / "model.safetensors")[-1]["loss"], rel=1e-4
    )


# ---------------------------------------------------------------- what is trained on


def test_batches_go_through_all_items() -> None:
    batches = ItemBatches(np.arange(100, 120), 6, 2, 1)
    epoch = np.concatenate([batches(step) for step in range(3)])
    assert len(epoch) == len(set(epoch.tolist())) == 18
    assert {int(item) for step in range(30) for item in batches(step)} == set(range(100, 120))
    assert batches(0).tolist() == ItemBatches(np.arange(100, 120), 6, 2, 1)(0).tolist() != batches(3).tolist()
    every = ItemBatches(np.arange(100, 119), 512, 2, 1)
    assert every.batch == 18
    assert len(set(every(0).tolist())) == 18
    with pytest.raises(ValueError, match="3 items can be trained on"):
        ItemBatches(np.arange(3), 8, 2, 1)


def test_items_without_training_interactions_change_nothing(tmp_path: Path) -> None:
    """Item 20 is held out: the embedder is the same whatever its text is."""
    data = write_data(tmp_path / "data")
    first = train(tmp_path / "a", table("scft"), data=data).read_bytes()
    for item, same in ((20, True), (19, False)):
        changed = write_data(tmp_path / f"data{item}")
        items = read_table(changed / "items.parquet", "items")
        titles = [
            "another title" if i == item else t
            for i, t in zip(items["item"].to_pylist(), items["title"].to_pylist(), strict=True)
        ]
        items = items.set_column(items.schema.get_field_index("title"), "title", pa.array(titles, pa.string()))
        write_table(changed / "items.parquet", items, "items")
        # every item is in every step
        assert (train(tmp_path / f"b{item}", table("scft"), data=changed).read_bytes() == first) == same


def test_views_are_fresh_or_static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for views, distinct in (("fresh", True), ("static", False)):
        seen: dict[int, list[str]] = {}
        plain = contrastive.two_views

        def watched(attributes: Any, drop: float, seed: int, step: int, item: int) -> Any:
            pair = plain(attributes, drop, seed, step, item)  # noqa: B023
            seen.setdefault(item, []).append(str(pair))  # noqa: B023
            return pair

        with monkeypatch.context() as patched:
            patched.setattr(contrastive, "two_views", watched)
            train(tmp_path / views, table("scft", {"steps": 5, "batch": 64}, views=views))
        assert len(seen) == 18
        assert len(seen[1]) == 5
        assert (len(set(seen[1])) > 1) == distinct


def test_the_published_prompts_leave_the_domain_out_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for preset, expected in (("correct", [True, True]), ("official", [False, True])):
        settings = table("lrcl", {"steps": 1}, preset=preset)
        told: list[bool] = []
        kind = implementation(settings)
        plain = kind.frame

        def watched(self: ContrastiveRecipe, training: bool = False) -> Any:
            frame = plain(self, training)  # noqa: B023
            told.append("household" in self.given.model.tokenizer.decode(frame.before))  # noqa: B023
            return frame

        with monkeypatch.context() as patched:
            patched.setattr(kind, "frame", watched)
            output = train(tmp_path / preset, settings)
            embed(settings, tmp_path / preset / "data" / "items.parquet", output)
        assert told == expected


def test_only_padding_on_the_left_tells_the_published_positions(tmp_path: Path) -> None:
    """With the published rotation and positions an item's vector depends on its batch; with the correct ones never."""
    for preset, depends in (("official", True), ("correct", False)):
        settings = table("lrcl", {"steps": 1}, preset=preset)
        output = train(tmp_path / preset, settings)
        catalogue = tmp_path / preset / "data" / "items.parquet"
        found = [embed(settings.model_copy(update={"batch_tokens": n}), catalogue, output)[1] for n in (1, 8192)]
        assert (np.abs(found[0] - found[1]).max() > 1e-4) == depends


# ---------------------------------------------------------------- adapters


def test_adapters_are_on_every_projection_and_merge_exactly() -> None:
    model = tiny_model()
    add_lora(model.tower, LoRA(dropout=0))
    names = {name.split(".")[-3] for name in lora_weights(model.tower)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("lora_" in name for name, p in model.full.named_parameters() if p.requires_grad)
    for weight in lora_weights(model.tower).values():
        weight.data.normal_(0, 0.1)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        beside = model.tower(input_ids=ids).last_hidden_state
        merge_lora(model.tower)
        merged = model.tower(input_ids=ids).last_hidden_state
    torch.testing.assert_close(merged, beside, atol=1e-5, rtol=1e-4)
    assert (merged - tiny_model().tower(input_ids=ids).last_hidden_state).abs().max() > 0.1
    assert not any("lora" in name for name, _ in model.tower.named_modules())
    encoder = tiny_model("encoder")
    add_lora(encoder.tower, LoRA())
    assert {name.split(".")[-3] for name in lora_weights(encoder.tower)} == {"query", "key", "value", "dense"}
    assert not any("pooler" in name for name in lora_weights(encoder.tower))


def test_adapters_of_half_precision_weights_are_trained_in_float32() -> None:
    model = tiny_model()
    model.full.to(torch.bfloat16)
    add_lora(model.tower, LoRA())
    assert {p.dtype for p in lora_weights(model.tower).values()} == {torch.float32}
    assert model.tower(input_ids=torch.arange(10)[None]).last_hidden_state.dtype == torch.bfloat16


@pytest.mark.parametrize("recipe", ["scft", "lrcl", "pairs"])
def test_encoders_can_be_tuned(recipe: str, tmp_path: Path) -> None:
    settings = table(recipe, {"steps": 3})
    output = train(tmp_path, settings, tiny_model("encoder"))
    catalogue = tmp_path / "data" / "items.parquet"
    _, vectors = embed(settings, catalogue, output, tiny_model("encoder"))
    assert vectors.shape == (19, 32)


# ---------------------------------------------------------------- refusals


def test_refusals(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.tower.layers[0].mlp.up_proj.weight[0, 0] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(TrainingError, match="scft: the loss became nan at step 1"):
        train(tmp_path / "nan", table("scft"), model)
    output = train(tmp_path / "ok", table("lrcl", {"steps": 1}))
    catalogue = tmp_path / "ok" / "data" / "items.parquet"
    with pytest.raises(ArtifactError, match="was trained on another model"):
        embed(table("lrcl"), catalogue, output, tiny_model(layers=3))
    with pytest.raises(ArtifactError, match="no such file"):
        load_embedder(tiny_model(), tmp_path / "none.safetensors", merge=True)
    data = write_data(tmp_path / "untold")
    items = read_table(data / "items.parquet", "items")
    nothing = pa.array([[] for _ in range(20)], pa.map_(pa.string(), pa.string()))
    for name, values in (("title", pa.nulls(20, pa.string())), ("attributes", nothing)):
        items = items.set_column(items.schema.get_field_index(name), name, values)
    write_table(data / "items.parquet", items, "items")
    with pytest.raises(ValueError, match="no item has any text"):
        train(tmp_path / "untold_run", table("scft"), data=data)
    assert attributes_of(4) == []
