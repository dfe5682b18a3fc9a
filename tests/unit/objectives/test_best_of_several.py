"""The loss over the best of several vectors: against loops over numbers and against autograd's form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.objectives.best_of_several import best_of_several
from tessera.objectives.cross_entropy import cross_entropy

CASE = (23, 3, 8)
"""Targets, vectors each, width."""


def case(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    states = (scale * torch.randn(CASE, dtype=dtype)).requires_grad_()
    items = torch.randn(41, CASE[2], dtype=dtype, requires_grad=True)
    return states, items, torch.randint(41, CASE[:1])


def plain(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((states @ items.T).amax(1), targets, reduction="sum")


def test_it_is_what_loops_over_numbers_give() -> None:
    states, items, targets = case()
    total = torch.zeros((), dtype=torch.float64)
    for row, target in zip(states, targets, strict=True):
        scores = torch.stack([torch.stack([vector @ item for vector in row]).max() for item in items])
        total = total - scores.log_softmax(0)[target]
    torch.testing.assert_close(best_of_several(states, items, targets, 5), total)


@pytest.mark.parametrize("rows", [1, 5, 23, 1000, None])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_values_and_gradients_are_those_of_autograd(rows: int | None, scale: float) -> None:
    states, items, targets = case(scale=scale)
    got, expected = best_of_several(states, items, targets, rows), plain(states, items, targets)
    torch.testing.assert_close(got, expected)
    for one, two in zip(
        torch.autograd.grad(2 * got, [states, items]), torch.autograd.grad(2 * expected, [states, items]), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_vectors_that_are_alike_share_the_gradient() -> None:
    """All vectors of a history of one item are alike under attention: as autograd shares, and no more in sum."""
    states, items, targets = case()
    alike = states.detach()[:, :1].expand(CASE).clone().requires_grad_()
    got = torch.autograd.grad(best_of_several(alike, items, targets, 4), alike)[0]
    torch.testing.assert_close(got, torch.autograd.grad(plain(alike, items, targets), alike)[0])
    one = alike[:, :1].detach().requires_grad_()
    torch.testing.assert_close(got.sum(1), torch.autograd.grad(plain(one, items, targets), one)[0][:, 0])


def test_one_vector_is_the_plain_cross_entropy() -> None:
    states, items, targets = case()
    alone = states[:, :1]
    torch.testing.assert_close(best_of_several(alone, items, targets), cross_entropy(alone[:, 0], items, targets))


def test_a_hopeless_target_has_a_finite_loss_in_float32() -> None:
    states, items, targets = case(torch.float32, scale=100.0)
    exact = plain(states.double(), items.double(), targets).item()
    assert best_of_several(states, items, targets, 4).item() == pytest.approx(exact, rel=1e-6)


def test_bfloat16_is_as_near_as_autograd_under_it() -> None:
    """Products in 16 bits, sums over items and targets in 32; gradients come back in 32."""
    states, items, targets = case(torch.float32)
    exact = torch.autograd.grad(plain(states, items, targets), [states, items])

    def distances(loss_of: object) -> list[float]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            gradients = torch.autograd.grad(loss_of(states, items, targets), [states, items])  # type: ignore[operator]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        return [float((one - two).norm() / two.norm()) for one, two in zip(gradients, exact, strict=True)]

    for ours, theirs in zip(distances(lambda *of: best_of_several(*of, 4)), distances(plain), strict=True):
        assert ours < 1.5 * theirs
