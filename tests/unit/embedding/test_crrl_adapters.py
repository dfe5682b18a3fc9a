"""CRRL whose language model learns: gradients through both passes, what moves and what does not, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from test_train_crrl import ITEMS, embed, fresh_attention, made, table, train, write_pairs
from tiny_language import tiny_model
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tessera.artifacts.models import read_tensors
from tessera.embedding.crrl import CollaborativeTraining, CRRLRecipe, Rollouts
from tessera.embedding.embedder import Embedder, save_embedder
from tessera.embedding.tune import train as run_training
from tessera.language.lora import add_lora, lora_weights
from tessera.language.reasoning import LatentReasoner
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.training.losses import total
from tessera.training.machine import Machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


Kind = Literal["decoder", "encoder"]


def stage_one(folder: Path, start: LRCLTable, kind: Kind = "decoder") -> Path:
    """A stage I whose adapters do something, and an attention if it thinks."""
    model = tiny_model(kind)
    add_lora(model.tower, start.lora)
    generator = torch.Generator().manual_seed(0)
    adapters = lora_weights(model.tower)
    for weight in adapters.values():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    torch.manual_seed(9)
    attention = fresh_attention(model, start) if start.thoughts else None
    path = folder / "first/model.safetensors"
    save_embedder(path, Embedder(adapters, start.lora, attention, 1.0, {"recipe": "lrcl", "settings": {}}))
    return path


def begun(data: Path, folder: Path, settings: CRRLTable, kind: Kind = "decoder", **start: Any) -> CRRLRecipe:
    """A recipe that is ready to train, on a stage I."""
    torch.set_num_threads(1)
    first = LRCLTable(model="tiny", batch_tokens=400, **start)
    embedder = stage_one(folder, first, kind)
    recipe = made(settings, first, data / "items.parquet", embedder, data, tiny_model(kind))
    recipe.begin(Machine(settings.training))
    return recipe


# ---------------------------------------------------------------- before the first step


@pytest.mark.parametrize(
    ("settings", "times"),
    [
        ({"policy": "vector", "negatives": "hard", "kl": 0.1, "noise_std": 0.5}, 2),  # also actions at the start
        ({"policy": "vector"}, 2),
        ({"objective": "contrastive"}, 1),
        ({"objective": "contrastive", "negatives": "hard"}, 1),
    ],
)
def test_the_catalogue_is_read_no_more_than_it_must(
    settings: dict[str, Any], times: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = LatentReasoner.read

    def counted(self: LatentReasoner, ids: Tensor, mask: Tensor) -> Any:
        read.append(len(ids))
        return real(self, ids, mask)

    monkeypatch.setattr(LatentReasoner, "read", counted)
    training = begun(data, tmp_path, table(learns="both", **settings)).training
    assert sum(read) == times * len(training.prefixes)
    # what was handed on is what would be made
    assert training.at_start is None
    if training.std:
        training.started = None
        assert training.deviation() == training.std


# ---------------------------------------------------------------- gradients against plain passes


def plain(training: CollaborativeTraining, row: list[int]) -> tuple[Tensor, Tensor]:
    """Thoughts (thoughts, width) and vector (width,) of one text by whole passes, nothing kept, nothing detached."""
    model, attention = training.reasoner.model, training.reasoner.attention
    inputs = model.embed(torch.tensor([row]))
    thoughts: list[Tensor] = []
    for _ in range(training.reasoner.settings.thoughts):
        assert attention is not None
        states = model.tower(inputs_embeds=inputs, use_cache=False).last_hidden_state
        at = torch.arange(states.shape[1])[None]
        thoughts.append(attention(states[:, -1], at[:, -1], states, torch.ones_like(at), at))
        inputs = torch.cat([inputs, thoughts[-1][:, None]], 1)
    if thoughts or model.kind != "encoder":
        inputs = torch.cat([inputs, model.embed(torch.tensor([[model.end_token]]))], 1)
    vector = model.tower(inputs_embeds=inputs, use_cache=False).last_hidden_state[0].mean(0)
    return (torch.stack(thoughts, 1)[0] if thoughts else torch.zeros(0, len(vector))), vector


def shaken(training: CollaborativeTraining) -> None:
    """As after an update: ratios are no longer one."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in training.reasoner.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn(parameter.shape, generator=generator)


def slopes(training: CollaborativeTraining, loss: Tensor) -> dict[str, Tensor]:
    learned = {name: p for name, p in training.reasoner.named_parameters() if p.requires_grad}
    return dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True))


def agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, slope in other.items():
        assert (one[name] - slope).norm() <= 1e-3 * (slope.norm() + 1e-5), name


@pytest.mark.parametrize(
    ("policy", "thoughts", "kind", "recompute"),
    [
        ("gaussian", 1, "decoder", True),
        ("gaussian", 2, "decoder", False),
        ("vector", 1, "decoder", False),
        ("vector", 0, "decoder", True),
        ("gaussian", 2, "encoder", True),
        ("vector", 1, "encoder", False),
        ("vector", 0, "encoder", False),
    ],
)
def test_a_policy_gradient_runs_through_both_passes(
    data: Path, tmp_path: Path, policy: str, thoughts: int, kind: Kind, recompute: bool
) -> None:
    learns = "both" if thoughts else "adapters"
    settings = table(policy=policy, learns=learns, kl=0.3, noise_std=0.5, reward="softmax")
    training = begun(data, tmp_path, settings, kind, thoughts=thoughts, recompute=recompute).training
    update = next(iter(training.updates(0)))
    rollouts: Rollouts = update.losses.args[0]  # type: ignore[attr-defined]
    shaken(training)
    losses = update.losses()
    loss = total(losses, training.machine).loss
    assert float(losses["kl"].value) > 0
    assert float(losses["ratio_change"].value) > 1e-3
    surrogates, divergences = [], []
    for place, row in enumerate(rollouts.rows):
        said = plain(training, list(training.prefixes.rows[row]))
        action = said[1][None] if policy == "vector" else said[0]
        now, then = Normal(action, training.std), Normal(rollouts.old[place, 0], training.std)
        assert rollouts.reference is not None
        divergences.append(kl_divergence(now, Normal(rollouts.reference[place, 0], training.std)).mean())
        for noise, advantage in zip(rollouts.noise[place, 1:], rollouts.advantages[place, 1:], strict=True):
            z = rollouts.old[place, 0] + noise
            ratio = (now.log_prob(z) - then.log_prob(z)).mean().exp()
            surrogates.append(torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage))
    expected = -torch.stack(surrogates).mean() + 0.3 * torch.stack(divergences).mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    found, reference = slopes(training, loss), slopes(training, expected)
    agree(found, reference)
    assert any("lora_A" in name and slope.abs().max() > 0 for name, slope in reference.items())
    assert ("attention.value.weight" in reference) == (learns == "both")


@pytest.mark.parametrize(("thoughts", "kind"), [(0, "decoder"), (1, "decoder"), (0, "encoder"), (1, "encoder")])
def test_the_control_learns_through_both_passes(data: Path, tmp_path: Path, thoughts: int, kind: Kind) -> None:
    learns = "both" if thoughts else "adapters"
    settings = table(objective="contrastive", learns=learns, positives=2)
    training = begun(data, tmp_path, settings, kind, thoughts=thoughts).training
    update = next(iter(training.updates(0)))
    ids, items, weights = update.losses.args  # type: ignore[attr-defined]
    loss = total(update.losses(), training.machine).loss
    vectors = {
        item: plain(training, list(training.prefixes.rows[int(training._rows(np.array([item]))[0])]))[1]
        for item in {*ids.tolist(), *items.ravel().tolist()}
    }
    unit = {item: vector / vector.norm() for item, vector in vectors.items()}
    similarity = torch.stack(
        [torch.stack([unit[one] @ unit[other] for other in row]) for one, row in zip(ids, items, strict=True)]
    )
    shares = torch.from_numpy(weights).to(similarity)
    expected = torch.nn.functional.cross_entropy(similarity / 0.1, shares)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    agree(slopes(training, loss), slopes(training, expected))


# ---------------------------------------------------------------- what moves


@pytest.mark.parametrize("learns", ["thought", "adapters", "both"])
def test_what_does_not_learn_stays_to_the_bit(data: Path, tmp_path: Path, learns: str) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400)
    first = stage_one(tmp_path, start)
    settings = table({"steps": 2}, learns=learns, policy="vector")
    recipe = made(settings, start, data / "items.parquet", first, data)
    before = {name: value.clone() for name, value in recipe.given.model.full.state_dict().items()}
    run_training(recipe, tmp_path / "second/model.safetensors", tmp_path / "state", Machine(settings.training))
    if learns != "thought":  # there stage I is merged into the weights
        after = {n.replace(".base_layer", ""): v for n, v in recipe.given.model.full.state_dict().items()}
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    old, new = read_tensors(first), read_tensors(tmp_path / "second/model.safetensors")
    assert old.keys() - {"temperature"} == new.keys()
    moved = {name.split("/")[0] for name in new if not torch.equal(old[name], new[name])}
    assert moved == {"thought": {"attention"}, "adapters": {"lora"}, "both": {"lora", "attention"}}[learns]
    if learns != "thought":
        still = [name for name in new if name.startswith("lora/") and torch.equal(old[name], new[name])]
        assert not still


def test_what_is_read_from_disk_is_what_was_trained(data: Path, tmp_path: Path) -> None:
    start = LRCLTable(model="tiny", batch_tokens=400, states="first_last")
    settings = table({"steps": 2, "learning_rate": 1e-2}, learns="both", policy="vector")
    recipe = made(settings, start, data / "items.parquet", stage_one(tmp_path, start), data)
    output = tmp_path / "second/model.safetensors"
    run_training(recipe, output, tmp_path / "state", Machine(settings.training))
    items, vectors = embed(settings, start, data / "items.parquet", output)
    eligible = recipe.training.candidates.eligible
    with torch.no_grad():
        trained = recipe.training.embed(np.arange(len(eligible))).numpy()
    np.testing.assert_allclose(vectors[np.searchsorted(items, eligible)], trained, atol=1e-5)
    assert len(items) == ITEMS - 1


@pytest.mark.parametrize(
    ("given", "steps", "rate"),
    [({"policy": "vector", "noise_std": 0.02, "group": 64}, 12, 3e-3), ({"objective": "contrastive"}, 8, 2e-2)],
    ids=["policy", "contrastive"],
)
def test_items_that_cooccur_come_closer(
    data: Path, tmp_path: Path, given: dict[str, Any], steps: int, rate: float
) -> None:
    training = {"steps": steps, "batch": 20, "learning_rate": rate}
    train(data, tmp_path, table(training, learns="both", positives=3, reward="softmax", **given))
    told = json.loads((tmp_path / "model.json").read_text())
    assert told["positive_rank_after"] < told["positive_rank_before"] - 0.1


def test_a_rollout_of_a_vector_costs_no_pass(data: Path, tmp_path: Path) -> None:
    training = begun(data, tmp_path, table(policy="vector", learns="both", group=64)).training
    seen: list[int] = []
    training.reasoner.tower.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"][..., 0].numel()), with_kwargs=True
    )
    training.updates(0)
    cost = sum(seen)
    seen.clear()
    other = begun(data, tmp_path, table(policy="vector", learns="both", group=2)).training
    other.reasoner.tower.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["inputs_embeds"][..., 0].numel()), with_kwargs=True
    )
    other.updates(0)
    assert cost == sum(seen) > 0


def test_tokens_need_a_frozen_model() -> None:
    with pytest.raises(ValueError, match="under policy token the model is frozen"):
        CRRLTable(model="tiny", policy="token", learns="both")
