"""Dropout by sixteen random bits an element: its rate, its scale, its seed."""

from __future__ import annotations

import pytest
import torch

from tessera.recommenders.backbones.dropout import Dropout, dropout_mask


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    mask = dropout_mask(200_001, rate)
    assert mask.dtype == torch.float32
    kept = 1 - round(rate * 2**16) / 2**16
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / kept, rel=1e-6)]
    assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    torch.manual_seed(0)
    assert torch.equal(dropout_mask(200_001, rate), mask)


def test_nearly_everything_may_drop() -> None:
    assert torch.isfinite(dropout_mask(1000, 0.9999999)).all()


def test_it_acts_while_training_alone() -> None:
    x = torch.randn(40, 50, requires_grad=True)
    layer = Dropout(0.4)
    assert layer.eval()(x) is x
    torch.manual_seed(1)
    dropped = layer.train()(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, x * dropout_mask(2000, 0.4).view(40, 50))
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, dropped == 0)
