"""Weight decay by module type, and losses that make one number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tessera.language.lora import Adapters
from tessera.settings.training import Training
from tessera.training.decay import decayed, groups
from tessera.training.losses import Term, reported, total
from tessera.training.machine import Machine


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(5, 4)
        self.vectors = nn.Parameter(torch.ones(5, 4))
        self.adapter = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.recurrent = nn.GRU(4, 4)
        self.picture = nn.Conv2d(3, 4, 2)
        self.read = nn.MultiheadAttention(4, 2)
        self.lora = Adapters({"a": nn.Parameter(torch.ones(2, 4))})
        self.words = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.words.weight


def test_matrices_of_layers_decay_and_nothing_else() -> None:
    model = Model()
    shrunk = decayed(model)
    names = {name for name, parameter in model.named_parameters() if id(parameter) in shrunk}
    assert names == {
        "adapter.0.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "picture.weight",
        "read.in_proj_weight", "read.out_proj.weight", "lora.a", "words.weight",
    }  # fmt: skip
    shrinking, free = groups(model.parameters(), shrunk, 0.1)
    assert shrinking["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert len(shrinking["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_losses_make_one_number() -> None:
    machine = Machine(Training(device="cpu"))
    value = torch.tensor(6.0, requires_grad=True)
    targets = torch.tensor(3)
    counted = total({"rank": Term(value, targets), "mean": Term(0.5 * value), "shown": reported(9.0)}, machine)
    assert float(counted.loss.detach()) == pytest.approx(6 / 3 + 3)
    assert float(counted.value / counted.targets) == pytest.approx(5.0)
    (gradient,) = torch.autograd.grad(counted.loss, value)
    assert float(gradient) == pytest.approx(1 / 3 + 0.5)
    two = total({"rank": Term(value, targets), "other": Term(value, torch.tensor(2))}, machine)
    assert float(two.loss.detach()) == pytest.approx(6 / 3 + 6 / 2)
    means = total({"a": Term(value), "b": Term(2 * value)}, machine)
    assert means.targets is None
    assert float(means.loss.detach()) == 18.0
    with pytest.raises(ValueError, match="without a loss"):
        total({"shown": reported(1.0)}, machine)
