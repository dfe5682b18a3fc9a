"""Latent reasoning with encoders: two passes against plain ones a text at a time, and both stages end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import test_train_contrastive as stage_one
import test_train_crrl as stage_two
import torch
from tiny_language import WIDTH, tiny_model, tokenizer
from torch import Tensor
from transformers import AlbertConfig, AlbertModel, OPTConfig, OPTForCausalLM

from tessera.artifacts.models import read_tensors
from tessera.embedding.crrl_published import PublishedCRRL
from tessera.embedding.lrcl import LRCLRecipe
from tessera.embedding.lrcl_published import PublishedLRCL
from tessera.embedding.prefixes import Prefixes
from tessera.embedding.recipe import Given
from tessera.embedding.rollouts import embeddings
from tessera.embedding.tune import train as run_training
from tessera.language.lora import add_lora, lora_weights
from tessera.language.models import load_model
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.reasoning_encoder import EncoderReasoner
from tessera.language.states import token_states
from tessera.language.tokens import pad_rows
from tessera.settings.language import FolderModel, ItemPrompt
from tessera.settings.recipes.crrl import CRRLTable
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.recipes.scft import SCFTTable
from tessera.settings.training import Steps
from tessera.training.machine import Machine

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16], [9, 5, 7]]


def make(**settings: Any) -> EncoderReasoner:
    """An encoder with adapters that do something."""
    model = tiny_model("encoder")
    table = LRCLTable(model="m", **settings)
    add_lora(model.tower, table.lora)
    generator = torch.Generator().manual_seed(0)
    for weight in lora_weights(model.tower).values():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    torch.manual_seed(1)
    return EncoderReasoner(model, ReasoningAttention(WIDTH), table).eval()


def plain(reasoner: EncoderReasoner, row: list[int], noise: Tensor | None = None) -> Tensor:
    """The vector of one text: whole passes without padding, nothing shared."""
    model, settings = reasoner.model, reasoner.settings
    inputs, thoughts = model.embed(torch.tensor([row])), []
    for number in range(settings.thoughts):
        states = model.tower(inputs_embeds=inputs).last_hidden_state
        states = states if settings.through_first_pass else states.detach()
        at = torch.arange(states.shape[1])[None]
        assert reasoner.attention is not None
        thoughts.append(reasoner.attention(states[:, -1], at[:, -1], states, torch.ones_like(at), at))
        inputs = torch.cat([inputs, thoughts[number][:, None]], 1)
    if thoughts:
        said = torch.stack(thoughts, 1) if noise is None else torch.stack(thoughts, 1) + noise
        inputs = torch.cat([model.embed(torch.tensor([row])), said, model.embed(torch.tensor([[model.end_token]]))], 1)
    states = model.tower(inputs_embeds=inputs).last_hidden_state
    each = token_states(states, inputs, settings.states)[0]
    if settings.pooling == "balanced" and thoughts:
        return (each[: len(row)].mean(0) + each[len(row) :].mean(0)) / 2
    return each[-1] if settings.pooling == "last" else each.mean(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"thoughts": 0},
        {"thoughts": 0, "pooling": "last", "states": "first_last"},
        {"thoughts": 1},
        {"thoughts": 2, "through_first_pass": True},
        {"thoughts": 2, "pooling": "balanced", "states": "first_last"},
        {"thoughts": 1, "pooling": "last"},
    ],
    ids=str,
)
def test_values_and_gradients_are_those_of_plain_passes(settings: dict[str, Any]) -> None:
    reasoner = make(**settings)
    found = reasoner(*pad_rows(ROWS, 3))
    expected = torch.stack([plain(reasoner, row) for row in ROWS])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    learned = [parameter for parameter in reasoner.parameters() if parameter.requires_grad]
    weights = torch.linspace(-1, 1, found.numel()).view_as(found)
    one = torch.autograd.grad((found * weights + found**2).sum(), learned, allow_unused=True)
    other = torch.autograd.grad((expected * weights + expected**2).sum(), learned, allow_unused=True)
    for slope, wanted in zip(one, other, strict=True):
        assert (slope is None) == (wanted is None)
        if slope is not None and wanted is not None:
            assert (slope - wanted).norm() <= 1e-3 * wanted.norm() + 1e-5
    assert sum(slope is not None and bool(slope.abs().max() > 0) for slope in other) > 10


@torch.no_grad()
@pytest.mark.parametrize("thoughts", [1, 2])
def test_rollouts_are_passes_of_their_own(thoughts: int) -> None:
    reasoner = make(thoughts=thoughts)
    machine = Machine(Steps(device="cpu"))
    kept, read = (Prefixes(reasoner, ROWS, gib, 8, machine) for gib in (1.0, 0.0))
    assert kept.kept
    places = np.array([2, 0, 1])
    noise = 0.3 * torch.randn(3, 4, thoughts, WIDTH, generator=torch.Generator().manual_seed(2))
    prefix = kept.of(places)
    vectors = embeddings(reasoner, prefix, reasoner.think(prefix)[:, None] + noise)
    other = read.of(places)
    torch.testing.assert_close(vectors, embeddings(reasoner, other, reasoner.think(other)[:, None] + noise))
    for place, row in enumerate(places):
        for rollout in range(4):
            alone = plain(reasoner, ROWS[row], noise[place, rollout])
            torch.testing.assert_close(vectors[place, rollout], alone, atol=1e-5, rtol=0)


def test_each_kind_of_model_has_its_own_reasoning() -> None:
    table, attention = LRCLTable(model="m"), ReasoningAttention(WIDTH)
    with pytest.raises(ValueError, match=r"LatentReasoner reasons with models of kind decoder, vision, .* encoder"):
        LatentReasoner(tiny_model("encoder"), attention, table)
    with pytest.raises(ValueError, match=r"EncoderReasoner reasons with models of kind encoder, .* decoder"):
        EncoderReasoner(tiny_model(), attention, table)


def test_published_habits_of_decoders_are_named() -> None:
    """A folder shows no earlier what it holds."""
    given = Given(prompt=ItemPrompt(), model=tiny_model("encoder"), catalogue=Path())
    lrcl = PublishedLRCL(LRCLTable(model="m", rope="mixed", two_pass=True), given)
    with pytest.raises(ValueError, match=r"recipe lrcl: rope: mixed, two_pass: True are habits of decoders.* encoder"):
        lrcl.check_model()
    crrl = PublishedCRRL(CRRLTable(model="m", policy="token"), given, LRCLRecipe(LRCLTable(model="m"), given))
    with pytest.raises(ValueError, match=r"recipe crrl: policy: token is a habit of decoders.* encoder"):
        crrl.check_model()


@pytest.mark.parametrize("thoughts", [0, 1])
def test_both_stages_train_and_embed(thoughts: int, tmp_path: Path) -> None:
    """Stage I, then stage II on it; untrained and without thoughts an item is what SCFT makes of it."""
    (tmp_path / "data").mkdir()
    data = stage_two.write_pairs(tmp_path / "data")
    catalogue = data / "items.parquet"
    start = LRCLTable(
        model="tiny", thoughts=thoughts, batch_tokens=400, training=Steps(**{**stage_one.STEPS, "steps": 2})
    )
    recipe = stage_one.made(start, catalogue, None, data, tiny_model("encoder"))
    assert isinstance(recipe, LRCLRecipe)
    first = tmp_path / "first/model.safetensors"
    run_training(recipe, first, tmp_path / "state", Machine(start.training))
    told = {}
    for case in ({"policy": "vector"}, {"policy": "gaussian"}, {"objective": "contrastive"}):
        if case.get("policy") == "gaussian" and not thoughts:
            continue
        settings = stage_two.table({"steps": 2}, learns="both", **case)
        output = tmp_path / str(case) / "model.safetensors"
        second = stage_two.made(settings, start, catalogue, first, data, tiny_model("encoder"))
        run_training(second, output, tmp_path / "state", Machine(settings.training))
        before, after = read_tensors(first), read_tensors(output)
        moved = {name.split("/")[0] for name in after if not torch.equal(before[name], after[name])}
        assert moved == ({"lora", "attention"} if thoughts else {"lora"})
        _, vectors = stage_two.embed(settings, start, catalogue, output, tiny_model("encoder"))
        assert np.isfinite(vectors).all()
        told[str(case)] = vectors
    assert len(told) == 2 + thoughts
    if not thoughts:
        _, vectors = stage_one.embed(start, catalogue, first, tiny_model("encoder"))
        plainly = SCFTTable(model="tiny", batch_tokens=400)
        _, same = stage_one.embed(plainly, catalogue, first, tiny_model("encoder"))
        np.testing.assert_allclose(vectors, same, atol=1e-5)


def test_states_that_are_projected_to_the_width_of_tokens_are_of_that_width(tmp_path: Path) -> None:
    """OPT-350m's: inside it is twice as wide."""
    torch.manual_seed(0)
    words = tokenizer()
    config = OPTConfig(vocab_size=len(words), hidden_size=WIDTH, word_embed_proj_dim=16, num_attention_heads=4,
                       num_hidden_layers=2, ffn_dim=48, max_position_embeddings=64)  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    words.save_pretrained(tmp_path / "opt")
    model = load_model(FolderModel(folder=str(tmp_path / "opt")), tmp_path / "opt")
    states = model.tower(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state
    assert model.width == model.input_width == states.shape[2] == 16


def test_a_model_whose_tokens_are_narrower_than_its_states_cannot_reason() -> None:
    """ALBERT's: its states cannot be read as tokens. Without thoughts nothing reads them so."""
    torch.manual_seed(0)
    words = tokenizer()
    full = AlbertModel(
        AlbertConfig(vocab_size=len(words), embedding_size=16, hidden_size=WIDTH, num_attention_heads=4,
                     num_hidden_layers=2, intermediate_size=48)
    )  # fmt: skip
    model = replace(tiny_model("encoder"), full=full, tower=full)
    assert (model.width, model.input_width) == (WIDTH, 16)
    recipe = LRCLRecipe.__new__(LRCLRecipe)
    recipe.given, recipe.settings = cast(Any, (SimpleNamespace(model=model), LRCLTable(model="m", thoughts=0)))
    assert recipe.attention() is None
    recipe.settings = LRCLTable(model="m", thoughts=1)
    with pytest.raises(ValueError, match=f"tokens of width 16 and states of {WIDTH}; take another model"):
        recipe.attention()
