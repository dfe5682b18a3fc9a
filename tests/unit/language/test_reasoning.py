"""Latent reasoning: one pass with the cache gives what the published two passes give, values and gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import BertConfig, BertModel, Qwen2_5_VLForConditionalGeneration, Qwen2Config, Qwen2Model
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

from tessera.embedding.lrcl_published import MixedAttention, PublishedReasoner
from tessera.language.reasoning import LatentReasoner, ReasoningAttention
from tessera.language.states import total
from tessera.settings.recipes.lrcl import LRCLTable

WIDTH = 32
LENGTHS = [11, 6, 3, 9]


def tower(kind: str) -> Any:
    sizes = {
        "vocab_size": 99, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
    }  # fmt: skip
    if kind == "qwen2":
        return Qwen2Model(Qwen2Config(**sizes))
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 1, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "num_heads": 4, "intermediate_size": 32}
    config = Qwen2_5_VLConfig(text_config={**sizes, "rope_parameters": rope}, vision_config=vision)
    return Qwen2_5_VLForConditionalGeneration(config).model.language_model


def reasoner(kind: str = "qwen2", lora: bool = True, double: bool = True, **settings: Any) -> LatentReasoner:
    torch.manual_seed(3)
    model = tower(kind).to(torch.float64 if double else torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad_(not lora)
    table = LRCLTable(model="tiny", **settings)
    if lora:
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        # the second matrix starts at zero by default: the first would have no gradient
        inject_adapter_in_model(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), model)
    make = MixedAttention if table.rope == "mixed" else ReasoningAttention
    attention = make(WIDTH, table.last_tokens).to(torch.float64 if double else torch.float32)
    language = SimpleNamespace(kind="decoder", tower=model, embed=model.get_input_embeddings(), end_token=1)
    # as published where a setting is
    return (PublishedReasoner if table.habits() else LatentReasoner)(language, attention, table)  # type: ignore[arg-type]


def texts(side: str = "right", width: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(2, 99, (length,), generator=generator) for length in LENGTHS]
    width = max(width, *LENGTHS)
    ids, mask = torch.full((len(rows), width), 7), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[number, place], mask[number, place] = row, 1
    return ids, mask


def value_and_gradients(model: LatentReasoner, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    found = model(ids, mask)
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    (found * weights + found**2).sum().backward()
    return found.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(first: tuple[Tensor, dict[str, Tensor]], second: tuple[Tensor, dict[str, Tensor]], tol: float) -> None:
    assert (first[0] - second[0]).abs().max() <= tol * second[0].abs().max()
    assert first[1].keys() == second[1].keys()
    for name, gradient in second[1].items():
        assert (first[1][name] - gradient).abs().max() <= tol * max(1e-3, float(gradient.abs().max())), name


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "settings",
    [
        {"thoughts": 1},
        {"thoughts": 2},
        {"thoughts": 3, "last_tokens": 4},
        {"thoughts": 2, "through_first_pass": True},
        {"thoughts": 1, "pooling": "last"},
        {"thoughts": 2, "pooling": "balanced", "states": "first_last"},
        {"thoughts": 2, "rope": "mixed", "positions": "padded"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["qwen2", "qwen2.5-vl"])
def test_one_pass_is_two_passes(kind: str, settings: dict[str, Any], side: str) -> None:
    ids, mask = texts(side)
    cached = value_and_gradients(reasoner(kind, **settings), ids, mask)
    plain = value_and_gradients(reasoner(kind, two_pass=True, **settings), ids, mask)
    # the model's norms and angles are float32 even in float64
    assert_same(cached, plain, 1e-5)
    assert any("lora_A" in name for name in cached[1])
    assert {"attention.query.weight", "attention.key.weight", "attention.value.bias"} <= cached[1].keys()


def test_one_pass_is_two_passes_in_float32_with_all_weights_trained() -> None:
    ids, mask = texts()
    cached = value_and_gradients(reasoner(lora=False, double=False), ids, mask)
    plain = value_and_gradients(reasoner(lora=False, double=False, two_pass=True), ids, mask)
    assert_same(cached, plain, 1e-5)
    assert "tower.embed_tokens.weight" in cached[1]


@pytest.mark.parametrize("kind", ["qwen2", "qwen2.5-vl"])
def test_the_beginning_that_texts_share_is_read_once(kind: str) -> None:
    ids, mask = texts()
    frame = torch.arange(40, 52).expand(len(ids), -1)
    ids, mask = torch.cat([frame, ids], 1), torch.cat([torch.ones_like(frame), mask], 1)
    model = reasoner(kind, thoughts=2)
    read: list[tuple[int, ...]] = []
    hook = model.tower.register_forward_pre_hook(
        lambda _, __, given: read.append(tuple(given["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    once = value_and_gradients(model, ids, mask)
    hook.remove()
    assert read == [(1, 12), (4, 11), (4, 1), (4, 3)]
    assert_same(once, value_and_gradients(reasoner(kind, thoughts=2, two_pass=True), ids, mask), 1e-5)
    # equal texts, one of them shorter than the other
    twice = torch.cat([ids[:1], ids[:1]]), torch.tensor([[1] * 23, [1] * 20 + [0] * 3])
    model.eval()
    torch.testing.assert_close(model(*twice)[1:], model(ids[:1, :20], mask[:1, :20]), atol=1e-6, rtol=1e-6)


def test_one_pass_differs_where_a_pass_is_changed() -> None:
    """The comparison above can fail: a thought, its position and its gradient all matter."""
    ids, mask = texts()
    model = reasoner()
    prefix = model.read(ids, mask)
    thoughts = model.think(prefix)
    right = model.finish(prefix, thoughts)
    assert (model.finish(prefix, torch.zeros_like(thoughts)) - right).abs().max() > 1e-3
    prefix.lengths = prefix.lengths + 1
    assert (model.finish(prefix, thoughts) - right).abs().max() > 1e-3
    free = value_and_gradients(reasoner(), ids, mask)[1]
    through = value_and_gradients(reasoner(through_first_pass=True), ids, mask)[1]
    assert any((free[name] - through[name]).abs().max() > 1e-3 for name in free)


def test_without_thoughts_it_is_mean_pooling() -> None:
    ids, mask = texts("left")
    model = reasoner(thoughts=0)
    for row, length in enumerate(LENGTHS):
        text = torch.cat([ids[row, mask[row].bool()], torch.tensor([1])])
        states = model.tower(input_ids=text[None]).last_hidden_state[0]
        assert len(states) == length + 1
        torch.testing.assert_close(model(ids, mask)[row], states.mean(0), atol=1e-6, rtol=1e-6)
    prefix = model.read(ids, mask)
    assert model.think(prefix).shape == (4, 0, WIDTH)
    torch.testing.assert_close(model.finish(prefix, model.think(prefix)), model(ids, mask), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("thoughts", [1, 2])
def test_padding_and_neighbours_do_not_matter(thoughts: int) -> None:
    model = reasoner(thoughts=thoughts)
    alone = torch.cat([model(*(part[row : row + 1] for part in trimmed(row))) for row in range(len(LENGTHS))])
    for side in ("right", "left"):
        for width in (0, 20):
            torch.testing.assert_close(model(*texts(side, width)), alone, atol=1e-6, rtol=1e-6)


def trimmed(row: int) -> tuple[Tensor, Tensor]:
    ids, mask = texts()
    return ids[:, : LENGTHS[row]], mask[:, : LENGTHS[row]]


def test_the_published_mixture_of_conventions_depends_on_padding() -> None:
    model = reasoner(rope="mixed", positions="padded")
    right, left = model(*texts("right")), model(*texts("left"))
    assert (right - left)[1].abs().max() > 1e-4
    # with proper rotation, places in the padded row do as well as true positions
    model = reasoner(rope="rotate_half", positions="padded")
    torch.testing.assert_close(model(*texts("right")), model(*texts("left")), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("kind", "relative"), [(ReasoningAttention, True), (MixedAttention, False)])
def test_scores_depend_on_relative_positions_only(kind: type[ReasoningAttention], relative: bool) -> None:
    torch.manual_seed(0)
    attention = kind(WIDTH)
    query, states = torch.randn(1, WIDTH), torch.randn(1, 1, WIDTH)
    scores = torch.stack(
        [attention.scores(query, torch.tensor([at + 3]), states, torch.tensor([[at]]))[0, 0] for at in (0, 8, 16, 50)]
    )
    assert (scores.std() < 1e-5) == relative
    turned = attention.rotate(query, torch.tensor([9]))
    assert (abs(turned.norm() - query.norm()) < 1e-4) == relative


def test_attention_against_the_formula() -> None:
    torch.manual_seed(1)
    attention = ReasoningAttention(4).double()
    states, position = torch.randn(1, 3, 4, dtype=torch.float64), torch.tensor([[0, 1, 2]])

    def turned(vector: Tensor, at: int) -> Tensor:
        out = torch.zeros(4, dtype=torch.float64)
        for pair, frequency in enumerate((1.0, 1000.0**-0.5)):
            turn = torch.tensor(at * frequency, dtype=torch.float64)
            a, b = vector[pair], vector[pair + 2]
            out[pair], out[pair + 2] = a * turn.cos() - b * turn.sin(), b * turn.cos() + a * turn.sin()
        return out

    query = turned(attention.query(states[0, 2]), 2)
    scores = torch.stack([query @ turned(attention.key(states[0, j]), j) / 2 for j in range(3)])
    expected = sum(w * attention.value(states[0, j]) for j, w in enumerate(scores.softmax(0)))
    found = attention(states[:, 2], torch.tensor([2]), states, torch.ones(1, 3), position)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-6)


def test_a_window_sees_the_last_tokens_only() -> None:
    torch.manual_seed(0)
    attention = ReasoningAttention(WIDTH, last_tokens=2)
    states, mask = torch.randn(1, 6, WIDTH), torch.tensor([[1, 1, 1, 1, 0, 0]])
    positions = torch.arange(6)[None]
    query, at = states[:, 3], torch.tensor([3])
    before = attention(query, at, states, mask, positions)
    hidden, shown = states.clone(), states.clone()
    hidden[:, [0, 1, 4, 5]] += 1
    shown[:, 2] += 1
    assert torch.equal(attention(query, at, hidden, mask, positions), before)
    assert not torch.allclose(attention(query, at, shown, mask, positions), before)


def test_rows_can_be_chosen_and_repeated() -> None:
    model = reasoner()
    ids, mask = texts()
    prefix = model.read(ids, mask)
    whole = model.finish(prefix, model.think(prefix))
    some = prefix.select([3, 0, 3])
    torch.testing.assert_close(model.finish(some, model.think(some)), whole[[3, 0, 3]])
    many = prefix.repeat(2)
    thoughts = model.think(prefix).repeat_interleave(2, 0)
    thoughts[1::2] += 0.3
    found = model.finish(many, thoughts)
    torch.testing.assert_close(found[::2], whole)
    assert (found[1::2] - whole).abs().max() > 1e-4
    # reading on leaves what was read as it is
    torch.testing.assert_close(model.finish(prefix, model.think(prefix)), whole, rtol=0, atol=0)


def test_gradient_checkpointing_reads_twice_instead_of_losing_the_cache() -> None:
    ids, mask = texts()
    plain = value_and_gradients(reasoner(lora=False), ids, mask)
    model = reasoner(lora=False)
    model.tower.gradient_checkpointing_enable()
    model.train()
    assert_same(value_and_gradients(model, ids, mask), plain, 1e-6)
    with pytest.raises(RuntimeError, match="gradient checkpointing must be off"):
        model.read(ids, mask)


def test_sums_of_states_are_not_rounded_by_autocast() -> None:
    states = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0)) + 100
    mask = torch.ones(2, 50)
    with torch.autocast("cpu", torch.bfloat16):
        summed = total(states, mask)
    assert summed.dtype == torch.float32
    torch.testing.assert_close(summed, states.double().sum(1).float())


def test_autocast_and_half_precision_weights_stay_close() -> None:
    ids, mask = texts()
    exact = reasoner(double=False)(ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = reasoner(double=False)(ids, mask)
    model = reasoner(double=False)
    model.tower.to(torch.bfloat16)
    half = model(ids, mask)
    for found in (mixed, half):
        assert found.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(found, exact).min() > 0.995


def test_encoders_are_refused() -> None:
    bert = BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    language = SimpleNamespace(kind="encoder", tower=bert, embed=None, end_token=1)
    with pytest.raises(ValueError, match="in an encoder texts see the thoughts after them"):
        LatentReasoner(language, None, LRCLTable(model="tiny", thoughts=0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd"):
        ReasoningAttention(7)
