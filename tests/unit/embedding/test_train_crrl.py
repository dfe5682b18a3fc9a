"""CRRL as a whole: what learns and what does not, the same numbers in every arrangement, every setting runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_language import tiny_model, write_catalogue
from torch import Tensor

from forked_processes import share
from tessera.artifacts.logs import Terminated
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import write_table
from tessera.data.dataset import load_dataset
from tessera.embedding.cooccurrence import build_candidates
from tessera.embedding.crrl import CollaborativeTraining, CRRLRecipe, Rollouts
from tessera.embedding.crrl_published import PublishedCRRL, PublishedTraining, thought_token
from tessera.embedding.embedder import Embedder, save_embedder
from tessera.embedding.lrcl_published import PublishedLRCL
from tessera.embedding.prefixes import Prefixes
from tessera.embedding.recipe import Given, Items, Vectors
from tessera.embedding.tune import train as run_training
from tessera.language.lora import add_lora, lora_weights
from tessera.language.models import LanguageModel
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.settings.kinds import implementation
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.training import Steps
from tessera.training.engine import Engine
from tessera.training.losses import total
from tessera.training.machine import Machine
from tessera.training.phases import Update

ITEMS = 24
PROMPT = ItemPrompt(domain="household item", attributes=["title", "kind", "store"])


def write_pairs(folder: Path) -> Path:
    """Who bought an item bought those of its kind (item mod 4); the last item is held out only."""
    generator = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("user", "item", "position", "split")}
    users = 48
    for user in range(1, users + 1):
        kind = user % 4
        mine = [item for item in range(1, ITEMS) if item % 4 == kind]
        history = [*generator.permutation(mine)[:4].tolist(), ITEMS]
        columns["user"] += [user] * 5
        columns["item"] += history
        columns["position"] += range(5)
        columns["split"] += ["train"] * 4 + ["test"]
    n = len(columns["user"])
    table = pa.table({**columns, "timestamp": pa.nulls(n, pa.int64()), "rating": pa.nulls(n, pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    names = {"user": list(range(1, users + 1)), "raw_id": [f"u{user}" for user in range(1, users + 1)]}
    write_table(folder / "users.parquet", pa.table(names), "users")
    write_catalogue(folder / "items.parquet", ITEMS)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def table(training: dict[str, Any] | None = None, **given: Any) -> CRRLTable:
    steps = {"steps": 3, "batch": 8, "learning_rate": 1e-3, "warmup_steps": 0, "device": "cpu", **(training or {})}
    return CRRLTable(
        model="tiny", **{"candidates": 6, "group": 4, "noise_std": 2.0, "training": Steps(**steps), **given}
    )


def train(
    data: Path, folder: Path, settings: CRRLTable, start: LRCLTable | None = None, embedder: Path | None = None
) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    output = folder / "model.safetensors"
    recipe = made(settings, start, data / "items.parquet", embedder, data)
    run_training(recipe, output, folder / "state", Machine(settings.training))
    return read_tensors(output)


def made(
    settings: CRRLTable, start: LRCLTable | None, catalogue: Path, embedder: Path | None, data: Path = Path(),
    model: LanguageModel | None = None,
) -> CRRLRecipe:  # fmt: skip
    """The recipe, as a job makes it."""
    given = Given(PROMPT, model or tiny_model(), catalogue, {}, data, embedder)
    start = start or LRCLTable(model="tiny", batch_tokens=400)
    recipe: CRRLRecipe = implementation(settings)(settings, given, implementation(start)(start, given))
    return recipe


def embed(
    settings: CRRLTable, start: LRCLTable, catalogue: Path, embedder: Path, model: LanguageModel | None = None
) -> tuple[Items, Vectors]:
    """Ids and vectors of what is embedded."""
    items, vectors = made(settings, start, catalogue, embedder, model=model).rows()[:2]
    return items, vectors


def fresh_attention(model: LanguageModel, start: LRCLTable) -> ReasoningAttention:
    return ReasoningAttention(model.width, start.last_tokens)


def make(data: Path, settings: CRRLTable, start: LRCLTable | None = None) -> CollaborativeTraining:
    """The training of a table without its loop."""
    torch.set_num_threads(1)
    model, start = tiny_model(), start or LRCLTable(model="tiny", batch_tokens=400)
    torch.manual_seed(5)
    reasoner = LatentReasoner(model, fresh_attention(model, start), start).eval()
    candidates = build_candidates(load_dataset(data), np.arange(1, ITEMS + 1), settings)
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, 90, size=int(n)).tolist() for n in generator.integers(3, 9, len(candidates.eligible))]
    machine = Machine(settings.training)
    kind: type[CollaborativeTraining] = implementation(settings).TRAINING
    return kind(settings, reasoner, Prefixes(reasoner, rows, 1.0, 400, machine), candidates, machine)


def gradients(training: CollaborativeTraining, loss: Tensor) -> dict[str, Tensor]:
    attention = training.reasoner.attention
    assert attention is not None
    names, parameters = zip(*attention.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}


def move(training: CollaborativeTraining) -> None:
    """As after an update: ratios are no longer one."""
    generator = torch.Generator().manual_seed(7)
    attention = training.reasoner.attention
    assert attention is not None
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)


# ---------------------------------------------------------------- gradients


def full_log_probability(training: CollaborativeTraining, rollouts: Rollouts, place: int, z: Tensor) -> Tensor:
    """(group, tokens) of all tokens of one item, each at its own place, from plain passes over everything."""
    model = training.reasoner.model
    length = int(rollouts.prefix.lengths[place])
    # the ids of this text, found again by its place in the batch
    row = training.prefixes.rows[training._rows(training.batches(0))[place]]
    assert len(row) == length
    tokens = torch.tensor([*row, thought_token(model), model.end_token])
    before, end = model.embed(torch.tensor([row])), model.embed(torch.tensor([[model.end_token]]))
    inputs = torch.cat([before.expand(len(z), -1, -1), z, end.expand(len(z), -1, -1)], 1)
    logits = model.logits(model.tower(inputs_embeds=inputs, use_cache=False).last_hidden_state)
    return logits.log_softmax(-1).gather(-1, tokens.expand(len(z), -1)[..., None])[..., 0]


def taken(training: CollaborativeTraining, update: Update) -> tuple[Tensor, dict[str, float]]:
    """The whole loss of an update, and what is told beside it."""
    losses = update.losses()
    told = {name: float(term.value) for name, term in losses.items() if not term.trained}
    return total(losses, training.machine).loss, told


def test_published_loss_and_gradient_from_the_last_two_tokens_alone(data: Path) -> None:
    training = make(data, table(policy="token", log_probability="unshifted", noise_free="rollout", advantage="batch"))
    first = next(iter(training.updates(0)))
    rollouts: Rollouts = first.losses.args[0]  # type: ignore[attr-defined]
    first.losses()
    olds = [full_log_probability(training, rollouts, i, rollouts.old[i] + rollouts.noise[i]).detach() for i in range(8)]
    move(training)
    loss, numbers = taken(training, first)
    assert numbers["ratio_change"] > 1e-4
    thoughts = training.reasoner.think(rollouts.prefix)[:, None]
    total, count = torch.zeros(()), 0
    for place, old in enumerate(olds):
        new = full_log_probability(training, rollouts, place, thoughts[place] + rollouts.noise[place])
        ratio, advantage = (new - old).exp(), rollouts.advantages[place][:, None]
        total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).sum()
        count += new.numel()
    torch.testing.assert_close(loss, total / count, atol=1e-5, rtol=0)
    expected, found = gradients(training, total / count), gradients(training, loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * float(gradient.abs().max() + 1e-3), rtol=1e-3)


def test_a_gaussian_update_leaves_the_language_model_alone(data: Path) -> None:
    training = make(data, table())
    first = next(iter(training.updates(0)))
    passes: list[int] = []
    training.reasoner.tower.register_forward_hook(lambda *_: passes.append(1))
    loss, _ = taken(training, first)
    assert not passes
    assert any(gradient.any() for gradient in gradients(training, loss).values())


def test_a_rollout_costs_its_tail_and_candidates_are_embedded_once(data: Path) -> None:
    training = make(data, table(candidates=10, group=8))
    tokens: list[int] = []
    training.reasoner.tower.register_forward_pre_hook(
        lambda _, __, given: tokens.append(given["inputs_embeds"][..., 0].numel()), with_kwargs=True
    )
    training.updates(0)
    distinct = len(np.unique(training.fixed[0][np.searchsorted(training.candidates.anchors, training.batches(0))]))
    assert sum(tokens) == 2 * (8 * 8 + distinct)


def test_equal_rewards_teach_nothing(data: Path) -> None:
    training = make(data, table(noise_std=1e-7, kl=0.0))
    first = next(iter(training.updates(0)))
    loss, numbers = taken(training, first)
    assert numbers["degenerate"] == 1.0
    assert not any(gradient.any() for gradient in gradients(training, loss).values())


@pytest.mark.parametrize("policy", ["gaussian", "token"])
def test_first_ratios_are_one_and_the_noise_free_rollout_is_left_out(data: Path, policy: str) -> None:
    training = make(data, table(policy=policy))
    first = next(iter(training.updates(0)))
    rollouts: Rollouts = first.losses.args[0]  # type: ignore[attr-defined]
    assert not rollouts.noise[:, 0].any()
    assert rollouts.noise[:, 1:].any(-1).all()
    assert not rollouts.counted[:, 0].any()
    loss, numbers = taken(training, first)
    assert numbers["ratio_change"] == 0.0
    assert numbers["clipped"] == 0.0
    torch.testing.assert_close(loss, -rollouts.advantages[:, 1:].mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("policy", ["gaussian", "token"])
def test_divergence_from_the_start_grows_and_from_the_live_policy_does_not(data: Path, policy: str) -> None:
    told = {}
    for reference in ("start", "live"):
        training = make(data, table(policy=policy, kl=0.1, reference=reference))
        move(training)
        _, numbers = taken(training, next(iter(training.updates(0))))
        told[reference] = numbers["kl"]
    assert told["start"] > 1e-6
    assert told["live"] == 0.0


# ---------------------------------------------------------------- training


def test_items_that_cooccur_come_closer(data: Path, tmp_path: Path) -> None:
    """Both objectives; the policy gradient sees rewards alone."""
    for objective, steps in (("policy", 150), ("contrastive", 60)):
        folder = tmp_path / objective
        settings = table(
            {"steps": steps, "batch": 16, "learning_rate": 3e-3}, objective=objective, noise_std=0.5, group=16,
            positives=3, reward="softmax", similarity="cosine",
        )  # fmt: skip
        train(data, folder, settings)
        description = json.loads((folder / "model.json").read_text())
        assert description["positive_rank_after"] < description["positive_rank_before"] - 0.2, objective
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert history[0]["positive_rank_before"] == description["positive_rank_before"]
        assert history[-1]["positive_rank_after"] == description["positive_rank_after"]


def same(first: dict[str, Tensor], second: dict[str, Tensor], atol: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=atol, rtol=0)


@pytest.mark.parametrize("given", [{}, {"learns": "both", "policy": "vector", "kl": 0.1}], ids=["thought", "both"])
def test_same_seed_same_weights_and_a_killed_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    settings = table({"steps": 6, "checkpoint_seconds": 0.0}, **given)
    whole = train(data, tmp_path / "whole", settings)
    same(whole, train(data, tmp_path / "again", settings))
    other = train(data, tmp_path / "other", table({"steps": 6, "seed": 2}, **given))
    assert any((whole[name] != other[name]).any() for name in whole)
    updates = CollaborativeTraining.updates

    def stop(self: CollaborativeTraining, step: int) -> Any:
        if step == 3:
            raise Terminated
        return updates(self, step)

    monkeypatch.setattr(CollaborativeTraining, "updates", stop)
    with pytest.raises(Terminated):
        train(data, tmp_path / "killed", settings)
    assert (tmp_path / "killed/state/checkpoint.safetensors").is_file()
    monkeypatch.setattr(CollaborativeTraining, "updates", updates)
    same(whole, train(data, tmp_path / "killed", settings))
    assert not (tmp_path / "killed/state/checkpoint.safetensors").exists()


def test_without_memory_for_the_texts_the_numbers_are_the_same(data: Path, tmp_path: Path) -> None:
    same(
        train(data, tmp_path / "kept", table()),
        train(data, tmp_path / "read", table(cache_gib=0.0)),
        atol=1e-4,
    )


@pytest.mark.parametrize("given", [{}, {"learns": "both", "policy": "vector"}], ids=["thought", "both"])
def test_a_held_out_interaction_changes_nothing(data: Path, tmp_path: Path, given: dict[str, Any]) -> None:
    """The last item is met in held-out interactions alone: without them the same weights are trained."""
    from pyarrow import compute
    from pyarrow import parquet as pq

    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("items", "users"):
        (cut / f"{name}.parquet").write_bytes((data / f"{name}.parquet").read_bytes())
    rows = pq.read_table(data / "interactions.parquet")
    pq.write_table(rows.filter(compute.equal(rows["split"], "train")), cut / "interactions.parquet")
    same(train(data, tmp_path / "all", table(**given)), train(cut, tmp_path / "train", table(**given)))
    leaked = train(data, tmp_path / "leaked", table(cooccurrence="all", **given))
    with pytest.raises(AssertionError):
        same(leaked, train(cut, tmp_path / "clean", table(cooccurrence="all", **given)))


@pytest.mark.parametrize(
    "given",
    [
        {"preset": "official"},
        {"preset": "official", "kl": 0.1},
        {"policy": "token", "kl": 0.1},
        {"negatives": "fresh", "positives": 3, "reward": "softmax"},
        {"objective": "contrastive", "similarity": "cosine"},
        {"group": 2},
        {"policy": "vector"},
        {"learns": "adapters", "kl": 0.1},
        {"learns": "both", "policy": "vector", "advantage": "batch"},
        {"learns": "both", "objective": "contrastive"},
        {"negatives": "hard", "reward": "ndcg", "positives": 3},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
@pytest.mark.parametrize("thoughts", [1, 2])
def test_every_setting_runs(data: Path, tmp_path: Path, given: dict[str, Any], thoughts: int) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400, thoughts=thoughts)
    weights = train(data, tmp_path, table({"steps": 2}, **given), start)
    assert all(value.isfinite().all() for value in weights.values())
    fresh = fresh_attention(tiny_model(), start)
    attention = {f"attention/{name}" for name, _ in fresh.named_parameters()}
    assert {name for name in weights if not name.startswith("lora/")} == attention
    assert (set(weights) != attention) == ("learns" in given)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    wanted = {"loss", "reward_noise_free"}
    if given.get("objective") != "contrastive":
        wanted |= {"reward", "degenerate", "clipped", "ratio_change"}
    assert all(wanted <= row.keys() for row in rows)
    items, vectors = embed(table(**given), start, data / "items.parquet", tmp_path / "model.safetensors")
    assert items.tolist() == [item for item in range(1, ITEMS + 1) if item != 4]  # of which nothing is told
    assert np.isfinite(vectors).all()


def test_the_published_code_without_a_habit_is_the_correct_one(data: Path, tmp_path: Path) -> None:
    """Every method that it overrides asks its own key."""
    settings = table(kl=0.1, reward="softmax")
    given = Given(PROMPT, tiny_model(), data / "items.parquet", {}, data)
    start = LRCLTable(model="tiny", batch_tokens=400)
    recipe = PublishedCRRL(settings, given, PublishedLRCL(start, given))
    run_training(recipe, tmp_path / "published/model.safetensors", tmp_path / "state", Machine(settings.training))
    assert isinstance(recipe.training, PublishedTraining)
    train(data, tmp_path / "correct", settings, start)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "published" / name).read_bytes() == (tmp_path / "correct" / name).read_bytes()


def test_stage_one_is_part_of_what_is_written(data: Path, tmp_path: Path) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400)
    model = tiny_model()
    add_lora(model.tower, start.lora)
    generator = torch.Generator().manual_seed(0)
    adapters = lora_weights(model.tower)
    for weight in adapters.values():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    first = tmp_path / "first/model.safetensors"
    torch.manual_seed(9)
    description = {"recipe": "lrcl", "settings": {}}
    save_embedder(first, Embedder(adapters, start.lora, fresh_attention(model, start), 1.0, description))
    weights = train(data, tmp_path / "second", table({"steps": 1}), start, first)
    written = read_tensors(first)
    for name, value in written.items():
        if name.startswith("lora/"):
            assert torch.equal(weights[name], value)
    moved = [name for name in weights if name.startswith("attention/") and (weights[name] != written[name]).any()]
    assert "attention/value.weight" in moved
    embedded = [
        embed(table(), start, data / "items.parquet", path)[1]
        for path in (first, tmp_path / "second/model.safetensors")
    ]
    change = np.abs(embedded[0] - embedded[1]).max()
    assert 0 < change < 0.1 * np.abs(embedded[0]).max()


def test_a_start_without_thoughts_is_refused_where_they_are_needed(data: Path, tmp_path: Path) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400, thoughts=0)
    for given in ({}, {"learns": "both"}, {"policy": "vector"}, {"objective": "contrastive"}):
        with pytest.raises(ValueError, match="no thoughts"):
            train(data, tmp_path, table(**given), start)  # type: ignore[arg-type]
    for given in ({"policy": "vector"}, {"objective": "contrastive"}):
        # of such an item nothing could be pooled when the catalogue is embedded, after the whole training
        with pytest.raises(ValueError, match="by_stage embeds items without an end token"):
            train(data, tmp_path, table(learns="adapters", prompts="by_stage", **given), start)  # type: ignore[arg-type]
        weights = train(data, tmp_path, table({"steps": 1}, learns="adapters", **given), start)  # type: ignore[arg-type]
        assert weights
        assert all(name.startswith("lora/") for name in weights)


# ---------------------------------------------------------------- processes

_CASES: list[dict[str, Any]] = [
    {"kl": 0.1, "reward": "softmax"}, {"preset": "official", "noise_std": 2.0}, {"objective": "contrastive"},
    {"learns": "both", "policy": "vector", "kl": 0.1, "noise_std": 0.5, "negatives": "hard"},
]  # fmt: skip


def _member(data: Path, folder: Path) -> None:
    rank, kept, fit = os.environ["RANK"], {}, Engine.fit

    def fitted(self: Engine) -> Any:
        history = fit(self)
        kept.update({name: value.detach().clone() for name, value in self.trained.state_dict().items()})
        return history

    Engine.fit = fitted  # type: ignore[method-assign]
    for number, case in enumerate(_CASES):
        try:
            train(data, folder / str(number), table({"processes": 2}, **case))  # type: ignore[arg-type]
        except FileNotFoundError:
            assert rank != "0"  # the first process alone writes what `train` reads back
        write_tensors(folder / str(number) / f"rank{rank}.safetensors", kept)


def test_two_processes_train_the_same_weights_as_one(data: Path, tmp_path: Path) -> None:
    share(2, _member, data, tmp_path / "two")
    for number, case in enumerate(_CASES):
        folder = tmp_path / "two" / str(number)
        same(*(read_tensors(folder / f"rank{rank}.safetensors") for rank in (0, 1)))
        one = train(data, tmp_path / "one" / str(number), table(**case))
        same(one, read_tensors(folder / "model.safetensors"), atol=1e-4)
        start = train(data, tmp_path / "start" / str(number), table({"steps": 1, "learning_rate": 1e-12}, **case))
        assert any((one[name] - start[name]).abs().max() > 1e-3 for name in one), case


def test_no_steps_leave_the_attention_as_it_started(data: Path, tmp_path: Path) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400)
    model = tiny_model()
    first = tmp_path / "first/model.safetensors"
    torch.manual_seed(9)
    add_lora(model.tower, start.lora)
    description = {"recipe": "lrcl", "settings": {}}
    attention = fresh_attention(model, start)
    save_embedder(first, Embedder(lora_weights(model.tower), start.lora, attention, 1.0, description))
    weights = train(data, tmp_path / "none", table({"steps": 0}), start, first)
    assert {name for name in weights if name.startswith("attention/")}
    for name, value in read_tensors(first).items():
        if name.startswith("attention/"):
            assert torch.equal(weights[name], value)
    assert (tmp_path / "none/history.jsonl").read_text() == ""
