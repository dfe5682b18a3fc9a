"""Vectors of some items: the same as one by one, both ways or one way, and a training that ends with the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "language"))
from tiny_vision import tiny_built, write_built, write_pictured

from tessera.artifacts.models import write_tensors
from tessera.content.bank import MemoryBank
from tessera.content.encoder import Encoder
from tessera.content.store import ContentStore, write_store
from tessera.language.lora import add_lora
from tessera.language.models import LanguageModel, load_model
from tessera.language.tokens import plain_frame
from tessera.settings.language import ItemPrompt
from tessera.settings.lora import LoRA
from tessera.settings.training import Steps
from tessera.training.engine import Engine
from tessera.training.losses import Losses, Term
from tessera.training.machine import Machine
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_built(tmp_path_factory.mktemp("model") / "model", tiny_built())


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ContentStore:
    root = tmp_path_factory.mktemp("store")
    images = ["1.png", None, "3.png", "4.png", "5.png", None]
    texts = ["Oak lamp", "A lamp in teal, pattern dots", None, "Lamp No. 4", "Lamp", None]
    data = write_pictured(root, COUNT, images, texts)
    write_store(root / "store", data / "items.parquet", load(folder), ItemPrompt(domain="lamp"), max_pixels=64 * 64)
    return ContentStore(root / "store")


def load(folder: Path, attention: str = "sdpa") -> LanguageModel:
    model = load_model(tiny_built(), folder)
    model.full.set_attn_implementation(attention)  # type: ignore[operator]
    return model


@pytest.mark.parametrize("shown", ["text", "image", "both"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@torch.no_grad()
def test_items_are_read_alike_one_by_one_and_in_batches(
    folder: Path, store: ContentStore, shown: Any, attention: Any
) -> None:
    encoder = Encoder(load(folder), store, shown, attention).eval()
    asked = torch.tensor([4, 2, 1, 4, 6, 3, 5])
    together = encoder(asked)
    assert together.shape == (7, encoder.language.width)
    alone = torch.cat([encoder(item[None]) for item in asked])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    encoder.batch_tokens = 1
    torch.testing.assert_close(encoder(asked), together, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together[4], encoder.absent)  # item 6 has nothing
    assert torch.equal(together[0], together[3])
    lacking = {"text": (3,), "image": (2,), "both": ()}[shown]
    for item in lacking:
        torch.testing.assert_close(encoder(torch.tensor([item]))[0], encoder.absent)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_both_ways_is_attention_without_a_mask(folder: Path, store: ContentStore, implementation: str) -> None:
    """By hand: the tower under a mask that hides nothing; and what comes later moves what stands before."""
    model = load(folder, implementation)
    encoder = Encoder(model, store, "text", "bidirectional").eval()
    row = store.rows([2]).texts[0]
    ids = torch.tensor([row])
    open_mask = torch.zeros(1, 1, len(row), len(row))
    tower: Any = model.tower
    positions = torch.arange(len(row))[None]
    by_hand = tower(inputs_embeds=model.embed(ids), attention_mask=open_mask, position_ids=positions, use_cache=False)
    states = encoder._states(ids, torch.ones_like(ids), [])
    torch.testing.assert_close(states, by_hand.last_hidden_state)
    padded = encoder._states(torch.tensor([[*row, 3, 3]]), torch.tensor([[1] * len(row) + [0, 0]]), [])
    torch.testing.assert_close(padded[:, : len(row)], states, atol=1e-5, rtol=1e-4)
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % 50
    moved = (encoder._states(other, torch.ones_like(ids), []) - states).abs().amax(-1)[0]
    assert bool((moved > 1e-6).all())
    causal = Encoder(model, store, "text", "causal").eval()
    first = causal._states(ids, torch.ones_like(ids), [])
    still = (causal._states(other, torch.ones_like(ids), []) - first).abs().amax(-1)[0]
    assert not still[:-1].any()


@torch.no_grad()
def test_a_picture_and_its_text_are_read_as_the_whole_model_reads_them(folder: Path, store: ContentStore) -> None:
    model = load(folder)
    encoder = Encoder(model, store, "both", "causal", pooling="last").eval()
    rows, pictures = encoder._rows([1])
    full: Any = model.full
    seen = pictures[0]
    assert seen is not None
    ids = torch.tensor(rows)
    output = full.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=seen.patches,
        image_grid_thw=seen.grid[None], mm_token_type_ids=(ids == full.config.image_token_id).int(), use_cache=False,
    )  # fmt: skip
    torch.testing.assert_close(encoder(torch.tensor([1]))[0], output.last_hidden_state[0, -1], atol=1e-5, rtol=1e-4)
    without = Encoder(model, store, "text", "causal", pooling="last").eval()
    assert (encoder(torch.tensor([1])) - without(torch.tensor([1]))).abs().max() > 1e-4


def test_a_text_makes_room_for_its_picture_and_keeps_its_end(folder: Path, store: ContentStore) -> None:
    model = load(folder)
    (whole,), _ = Encoder(model, store, "both")._rows([1])
    ends = len(plain_frame(model).after)
    model.context = len(whole) - 3
    (cut,), _ = Encoder(model, store, "both")._rows([1])
    assert cut == [*whole[: len(whole) - 3 - ends], *whole[len(whole) - ends :]]
    model.context = 3
    with pytest.raises(ValueError, match=r"the picture of item 1 has .* tokens, of which the model reads 3; make"):
        Encoder(model, store, "both")._rows([1])


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_every_weight_that_learns(folder: Path, store: ContentStore, recompute: bool) -> None:
    encoder = Encoder(load(folder), store, "both", "bidirectional", recompute=recompute).train()
    encoder.full.requires_grad_(True)
    encoder(torch.tensor([1, 2, 6])).square().sum().backward()
    lacking = [
        name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()
        if "lm_head" not in name and not name.endswith("k_proj.bias")  # keys' bias moves no softmax
    ]  # fmt: skip
    assert [name for name in lacking if "visual" not in name] == []
    adapted = load(folder)
    add_lora(adapted.tower, LoRA(rank=2))
    learning = {name for name, p in Encoder(adapted, store).named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name or name == "absent" for name in learning)


# ---------------------------------------------------------------- a program with encoder, bank and ranker


class Ranker(nn.Module):
    """The last items of a history from the bank, the target and negatives from the encoder."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.bank = encoder, MemoryBank(COUNT, encoder.language.width)
        self.mix = nn.Linear(encoder.language.width, encoder.language.width)

    def loss(self, step: int) -> Losses:
        items = torch.from_numpy(np.random.default_rng(step).permutation(COUNT)[:4] + 1)
        vectors = self.encoder(items[:3])
        self.bank.write(items[:3], vectors.detach(), step)
        history, _, present = self.bank.read(items, step)
        user = self.mix((history * present[:, None]).mean(0))
        return {"rank": Term(-(vectors @ user).log_softmax(0)[0])}


def train(folder: Path, store: ContentStore, state: Path, stop: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = load(folder)
    add_lora(model.tower, LoRA(rank=2, dropout=0.1))
    ranker = Ranker(Encoder(model, store, "both", "bidirectional")).train()
    settings = Steps(steps=8, batch=2, learning_rate=0.01, device="cpu", checkpoint_seconds=0.0)

    def updates(_: None, at: Position) -> list[Update]:
        if at.step == stop:
            raise KeyboardInterrupt
        return [Update(lambda: ranker.loss(at.step), name) for name in ("encoder", "ranker")]

    encoder = [p for p in ranker.encoder.parameters() if p.requires_grad]
    optimizers = {"encoder": Optimizer(settings, encoder), "ranker": Optimizer(settings, list(ranker.mix.parameters()))}
    engine = Engine(ranker, [Phase(updates, FixedSteps(8), optimizers)], settings, 1, state, Machine(settings))
    engine.fit()
    return {name: value.detach().clone() for name, value in engine.trained.state_dict().items()}


def test_a_program_with_bank_and_ranker_goes_on_to_the_same_bytes(
    folder: Path, store: ContentStore, tmp_path: Path
) -> None:
    whole = train(folder, store, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(folder, store, tmp_path / "cut", stop=5)
    for name, found in (("whole", whole), ("cut", train(folder, store, tmp_path / "cut"))):
        write_tensors(tmp_path / f"{name}.safetensors", found)
    assert (tmp_path / "cut.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert any("lora_" in name for name in whole)
    assert int(whole["bank/written"].max()) == 7


def test_what_cannot_be_read_is_refused(folder: Path, store: ContentStore, tmp_path: Path) -> None:
    model = load(folder)
    with pytest.raises(ValueError, match="item 9 is not of the store"):
        Encoder(model, store)(torch.tensor([1, 9]))
    data = write_pictured(tmp_path, 3)
    write_store(tmp_path / "texts", data / "items.parquet", model, ItemPrompt(domain="lamp"))
    with pytest.raises(ValueError, match="made without pictures"):
        Encoder(model, ContentStore(tmp_path / "texts"), "both")
