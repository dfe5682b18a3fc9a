"""The optimiser of all trainings steps as torch's own does, and loads no compiler."""

from __future__ import annotations

import subprocess
import sys

import torch

from tessera.training.adamw import AdamW
from tessera.training.decay import decayed, groups


def trained(kind: type[torch.optim.AdamW]) -> list[torch.Tensor]:
    """Weights and moments after some steps, with a group that decays and one that does not."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 1))
    optimizer = kind(groups(list(model.parameters()), decayed(model), 0.1), lr=0.05, betas=(0.9, 0.97), fused=True)
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (step + 1)
        optimizer.zero_grad(set_to_none=True)
        assert all(parameter.grad is None for parameter in model.parameters())
        model(torch.randn(7, 6)).square().mean().backward()
        optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*(parameter.detach() for parameter in model.parameters()), *moments]


def test_steps_are_those_of_torch_to_the_bit() -> None:
    own, wanted = trained(AdamW), trained(torch.optim.AdamW)
    assert len(own) == len(wanted) == 4 * 6
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(own, wanted, strict=True))


def test_a_closure_has_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert weight.tolist() != [1, 1]


PROGRAM = """
import sys, torch
from tessera.training.adamw import AdamW
from tessera.training.machine import pick_device
pick_device("cpu")
weight = torch.nn.Parameter(torch.ones(2))
optimizer = AdamW([weight], lr=0.1, fused=True)
optimizer.zero_grad(set_to_none=True)
weight.sum().backward()
optimizer.step()
assert weight[0] < 1
assert "torch._dynamo" not in sys.modules and "sympy" not in sys.modules
"""


def test_no_compiler_is_loaded() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
