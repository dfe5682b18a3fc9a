"""Variance of risks and the gradient penalty, against autograd of a scale, differences and plain sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.objectives import scale_gradient
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.invariance import RiskAndGradient, gradient_penalty, variance_of_risks
from tessera.settings.losses.base import LossSettings
from tessera.settings.losses.bce import BCE
from tessera.settings.losses.bpr import BPR
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.losses.gbce import GBCE
from tessera.settings.losses.sampled_softmax import SampledSoftmax

POPULARITY = torch.tensor([0, 4, 0, 2, 0, 0, 9, 1, 0, 3])
HISTORIES = torch.tensor([[1, 3, 6, 0], [7, 9, 1, 3]])
TARGETS, OWNERS = torch.tensor([3, 6, 9, 1, 3]), torch.tensor([0, 0, 1, 1, 1])


def drawn() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 8), (10, 8)]
    states, vectors = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return states.requires_grad_(), vectors.requires_grad_()


def test_the_variance_is_unbiased() -> None:
    risks = [1.0, 2.5, 4.0]
    assert float(variance_of_risks(torch.tensor(risks))) == pytest.approx(np.var(risks, ddof=1))
    assert float(variance_of_risks(torch.tensor([2.0, 2.0]))) == 0
    one = torch.tensor([3.0], requires_grad=True)
    variance_of_risks(one).backward()
    assert float(one.grad) == 0


def test_the_penalty_is_the_sum_of_squares() -> None:
    assert float(gradient_penalty(torch.tensor([1.0, -2.0]))) == 5


def made(settings: LossSettings) -> RiskAndGradient:
    return RiskAndGradient(settings, catalogue_loss(settings, POPULARITY), POPULARITY)


@pytest.mark.parametrize("cold", ["negatives", "left_out"])
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_the_gradient_of_the_cross_entropy_is_that_of_a_scale(
    cold: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its square has the gradients of a penalty that autograd differentiates twice."""
    monkeypatch.setattr(scale_gradient, "_CHUNK", chunk)
    states, vectors = drawn()
    risk, gradient = made(CrossEntropy(cold_items=cold))(states, vectors, TARGETS, OWNERS, HISTORIES)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    logits = scale * (states @ vectors.T)
    kept = POPULARITY > 0 if cold == "left_out" else torch.arange(10) > 0
    plain = F.cross_entropy(logits.masked_fill(~kept, -torch.inf), TARGETS, reduction="sum")
    (expected,) = torch.autograd.grad(plain, scale, create_graph=True)
    torch.testing.assert_close(risk, plain)
    torch.testing.assert_close(gradient, expected)
    ours = torch.autograd.grad(gradient_penalty(gradient[None]), (states, vectors))
    theirs = torch.autograd.grad(expected.square(), (states, vectors))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own[1:], other[1:])


@pytest.mark.parametrize(
    "settings",
    [CrossEntropy(), GBCE(negatives=6), BCE(negatives=4), BPR(negatives=4), SampledSoftmax(negatives=6)],
    ids=lambda kind: kind.kind,
)
def test_the_gradient_is_a_difference_of_risks(settings: LossSettings) -> None:
    states, vectors = drawn()
    loss = made(settings)
    torch.manual_seed(3)
    risk, gradient = loss(states, vectors, TARGETS, OWNERS, HISTORIES)
    values = []
    for scale in (1 + 1e-5, 1 - 1e-5):
        torch.manual_seed(3)  # the same negatives
        values.append(float(loss.loss(states * scale, vectors, TARGETS, OWNERS, HISTORIES).detach()))
    assert float(gradient.detach()) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-6)
    assert values[1] <= float(risk.detach()) + abs(values[0] - values[1])
    (moved,) = torch.autograd.grad(gradient.square(), states)
    assert bool(moved.abs().sum() > 0)


def test_it_is_zero_where_no_scale_would_do_better() -> None:
    """Scores at the scale that is best for them; any other has a penalty."""
    torch.manual_seed(0)
    states, vectors = torch.randn(2000, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    targets = torch.multinomial((states @ vectors[1:].T).softmax(1), 1)[:, 0] + 1
    loss = made(CrossEntropy())
    owners = torch.zeros(2000, dtype=torch.int64)
    at = [float(loss(states * scale, vectors, targets, owners, HISTORIES)[1]) / 2000 for scale in (0.3, 1.0, 3.0)]
    assert at[0] < -0.05
    assert abs(at[1]) < 0.05
    assert at[2] > 0.1


def test_no_target_has_no_risk() -> None:
    states, vectors = drawn()
    nothing = torch.zeros(0, dtype=torch.int64)
    for settings in (CrossEntropy(), BPR(negatives=4)):
        risk, gradient = made(settings)(states[:0], vectors, nothing, nothing, HISTORIES)
        assert float(risk.detach()) == float(gradient.detach()) == 0
