"""Published habits that are thought wrong: there when asked for, and only then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tessera.recommenders.backbones.gru4rec import GRU4Rec
from tessera.recommenders.backbones.sasrec import SASRec
from tessera.recommenders.item_encoders.table import TableItemEncoder
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.sasrec import SASRecSettings
from tessera.settings.items.table import TableItems

HISTORIES = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0]])


def sasrec(**changes: Any) -> SASRec:
    torch.manual_seed(0)
    return SASRec(SASRecSettings(dim=8, heads=2, inner_dim=16, max_length=6, **changes)).eval()


@pytest.mark.parametrize("preset", ["correct", "official"])
def test_only_official_sasrec_sees_its_own_target(preset: str) -> None:
    model = sasrec(preset=preset) if preset == "correct" else SASRec(
        SASRecSettings.model_validate(
            {"dim": 8, "heads": 2, "inner_dim": 16, "max_length": 6, "preset": "official"}
        )
    ).eval()  # fmt: skip
    vectors = torch.randn(9, 8)
    states = model.examples(HISTORIES, vectors).states
    changed = HISTORIES.clone()
    changed[0, 3] = 7  # an input of the position after the third
    moved = (model.examples(changed, vectors).states - states).abs().sum(1)
    assert (moved[:3] > 1e-6).all().item() == (preset == "official")
    assert (moved[4:] == 0).all()  # the other history


def test_official_sasrec_does_not_see_padding() -> None:
    model = sasrec(causal=False)
    vectors = torch.randn(9, 8)
    lengths = torch.tensor([5, 2])
    together = model.encode(HISTORIES, lengths, vectors)
    alone = model.encode(HISTORIES[1:, :2], lengths[1:], vectors)
    assert torch.allclose(together[1:], alone, atol=1e-6)
    inputs = torch.nn.functional.embedding(HISTORIES, vectors)
    assert torch.allclose(model.hidden(inputs, lengths)[[0, 1], lengths - 1], together, atol=1e-6)


def test_official_gru_predicts_the_last_item_alone() -> None:
    settings = GRU4RecSettings(dim=8, hidden_dim=8, max_length=6)
    torch.manual_seed(0)
    every = GRU4Rec(settings).eval()
    last = GRU4Rec(settings.model_copy(update={"targets": "last"})).eval()
    last.load_state_dict(every.state_dict())
    vectors = torch.randn(9, 8)
    told, few = every.examples(HISTORIES, vectors), last.examples(HISTORIES, vectors)
    assert told.targets.tolist() == [1, 4, 1, 5, 6]
    assert few.targets.tolist() == [5, 6]
    assert few.owners.tolist() == [0, 1]
    assert torch.equal(few.states, told.states[[3, 4]])


def test_official_table_loses_its_last_item_and_its_nonlinearity() -> None:
    vectors, present = torch.randn(6, 5), torch.tensor([False] + [True] * 5)
    torch.manual_seed(0)
    plain = TableItemEncoder(TableItems(table="t", adapter=[7]), vectors, present, 4)
    official = TableItemEncoder(TableItems.model_validate(
        {"table": "t", "adapter": [7], "preset": "official"}), vectors, present, 4
    )  # fmt: skip
    assert (plain.table[-1] != 0).all()
    assert (official.table[-1] == 0).all()
    assert torch.equal(official.table[1:-1], vectors[1:-1])
    bias = official.adapter(torch.zeros(5))
    one, two = official.adapter(vectors[1]) - bias, official.adapter(2 * vectors[1]) - bias
    assert torch.allclose(two, 2 * one, atol=1e-6)
