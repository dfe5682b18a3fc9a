"""Rollouts behind kept prefixes against passes over everything, and prefixes in memory against read ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_language import WIDTH, tiny_model
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

from tessera.embedding.prefixes import Prefixes
from tessera.embedding.rollouts import embeddings, tail_states
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.settings.recipes.lrcl import LRCLTable
from tessera.settings.training import Steps
from tessera.training.machine import Machine

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16], [9, 5, 7]]


def language(kind: str) -> Any:
    if kind != "vision":
        model = tiny_model()
        model.full.set_attn_implementation(kind)
        return model
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 99, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
    }  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "num_heads": 4, "intermediate_size": 32}
    config = Qwen2_5_VLConfig(text_config={**sizes, "rope_parameters": rope}, vision_config=vision)
    tower = Qwen2_5_VLForConditionalGeneration(config).eval().requires_grad_(False).model.language_model
    return SimpleNamespace(
        kind="vision", tower=tower, embed=tower.get_input_embeddings(), end_token=1, pad_token=0,
        device=torch.device("cpu"),
    )  # fmt: skip


def make(kind: str = "sdpa", **settings: Any) -> LatentReasoner:
    model = language(kind)
    torch.manual_seed(1)
    attention = ReasoningAttention(WIDTH)
    return LatentReasoner(model, attention, LRCLTable(model="m", **settings)).eval()


def keep(reasoner: LatentReasoner, gib: float = 1.0, batch_tokens: int = 8) -> Prefixes:
    return Prefixes(reasoner, ROWS, gib, batch_tokens, Machine(Steps(device="cpu")))


def passes(reasoner: LatentReasoner, row: list[int], thoughts: Tensor, end: bool = True) -> Tensor:
    """States of all tokens of one text with thoughts (thoughts, width), in one plain pass."""
    model = reasoner.model
    told = [model.embed(torch.tensor([row])), thoughts[None]]
    told += [model.embed(torch.tensor([[model.end_token]]))] if end else []
    states: Tensor = model.tower(inputs_embeds=torch.cat(told, 1), use_cache=False).last_hidden_state
    return states[0]


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("thoughts", [1, 3])
@pytest.mark.parametrize("kind", ["sdpa", "eager", "vision"])
@torch.no_grad()
def test_rollouts_are_those_of_full_passes(kind: str, thoughts: int, end: bool) -> None:
    reasoner = make(kind, thoughts=thoughts)
    prefix = keep(reasoner).of(torch.tensor([2, 0, 1]).numpy())
    noise = 0.3 * torch.randn(3, 4, thoughts, WIDTH, generator=torch.Generator().manual_seed(2))
    z = reasoner.think(prefix)[:, None] + noise
    states = tail_states(reasoner, prefix, z, end)
    vectors = embeddings(reasoner, prefix, z, end)
    for place, row in enumerate([2, 0, 1]):
        for rollout in range(4):
            full = passes(reasoner, ROWS[row], z[place, rollout], end)
            torch.testing.assert_close(states[place, rollout], full[len(ROWS[row]) :], atol=1e-5, rtol=0)
            torch.testing.assert_close(vectors[place, rollout], full.mean(0), atol=1e-5, rtol=0)
    # the noise is seen at all
    assert (vectors[:, 0] - vectors[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_attention_without_masks_of_its_own_repeats_the_text() -> None:
    reasoner = make(thoughts=2)
    prefix = keep(reasoner).of(torch.tensor([2, 0, 1]).numpy())
    z = torch.randn(3, 4, 2, WIDTH, generator=torch.Generator().manual_seed(2))
    packed = tail_states(reasoner, prefix, z)
    shapes: list[tuple[int, ...]] = []

    def tower(**given: Any) -> Any:
        shapes.append(tuple(given["attention_mask"].shape))
        return reasoner.tower(**given)

    tower.config = SimpleNamespace(_attn_implementation="flash_attention_2")  # type: ignore[attr-defined]
    repeated = tail_states(SimpleNamespace(model=reasoner.model, tower=tower), prefix, z)  # type: ignore[arg-type]
    assert shapes == [(12, 6 + 3)]
    torch.testing.assert_close(packed, repeated, atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_noise_a_rollout_is_the_embedding_of_stage_one() -> None:
    for settings in (
        {},
        {"thoughts": 2},
        {"pooling": "last"},
        {"pooling": "balanced", "states": "first_last"},
        {"last_tokens": 2},
    ):
        reasoner = make(**settings)
        prefix = keep(reasoner).of(torch.arange(4).numpy())
        found = embeddings(reasoner, prefix, reasoner.think(prefix)[:, None])[:, 0]
        for place, row in enumerate(ROWS):
            expected = reasoner(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))
            torch.testing.assert_close(found[place], expected[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_prefixes_in_memory_are_those_that_are_read() -> None:
    reasoner = make()
    kept, read = keep(reasoner), keep(reasoner, gib=0.0)
    assert kept.kept
    assert not read.kept
    places = torch.tensor([1, 3, 0, 1]).numpy()
    one, other = kept.of(places), read.of(places)
    mask = one.mask.bool()
    assert torch.equal(one.mask, other.mask)
    assert torch.equal(one.lengths, other.lengths)
    torch.testing.assert_close(one.positions[mask], other.positions[mask])
    torch.testing.assert_close(one.states[mask], other.states[mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(one.total, other.total, atol=1e-5, rtol=0)
    for layer, again in zip(one.cache, other.cache, strict=True):
        for a, b in zip(layer, again, strict=True):
            torch.testing.assert_close(a.transpose(1, 2)[mask], b.transpose(1, 2)[mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(reasoner.think(one), reasoner.think(other), atol=1e-5, rtol=0)


def test_batches_hold_as_many_tokens_as_they_may() -> None:
    kept = keep(make(), batch_tokens=8)
    places = torch.arange(4).numpy()
    batches = kept.batches(places)
    assert sorted(index for batch in batches for index in batch.tolist()) == [0, 1, 2, 3]
    assert all(kept.lengths[batch].max() * len(batch) <= 8 for batch in batches if len(batch) > 1)
