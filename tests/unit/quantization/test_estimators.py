"""Gradients past a choice: values are codes, gradients are those promised."""

from __future__ import annotations

import pytest
import torch

from tessera.quantization.estimators import gumbel, rotation, straight_through


def pair(n: int = 7, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, dim, dtype=torch.float64, requires_grad=True), torch.randn(n, dim, dtype=torch.float64)


@pytest.mark.parametrize("estimate", [straight_through, rotation])
def test_the_value_is_the_code(estimate) -> None:
    latent, code = pair()
    assert torch.allclose(estimate(latent, code), code, atol=1e-12)


def test_straight_through_passes_the_gradient_unchanged() -> None:
    latent, code = pair()
    straight_through(latent, code).backward(code)
    assert torch.equal(latent.grad, code)


def test_rotation_turns_and_scales_the_gradient() -> None:
    latent, code = pair()
    incoming = torch.randn_like(code)
    rotation(latent, code).backward(incoming)
    for z, q, g, found in zip(latent.detach(), code, incoming, latent.grad, strict=True):
        # the matrix that turns z / |z| into q / |q| in their plane and leaves the rest, made another way
        a = z / z.norm()
        b = q / q.norm() - (q / q.norm() @ a) * a
        b = b / b.norm()
        cos, sin = q @ a / q.norm(), q @ b / q.norm()
        plane = torch.stack([a, b], 1)
        turn = torch.eye(5, dtype=torch.float64) + plane @ (
            torch.tensor([[cos - 1, -sin], [sin, cos - 1]], dtype=torch.float64) @ plane.T
        )
        scale = q.norm() / z.norm()
        assert torch.allclose(turn @ z * scale, q)
        assert torch.allclose(found, scale * turn.T @ g, atol=1e-10)
        assert float(found.norm()) == pytest.approx(float(scale * g.norm()))


@pytest.mark.parametrize(("z", "q"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [-1.0, -2.0])])
def test_vectors_of_zeros_and_opposite_ones_give_numbers(z: list[float], q: list[float]) -> None:
    latent, code = torch.tensor([z], requires_grad=True), torch.tensor([q])
    made = rotation(latent, code)
    made.sum().backward()
    assert torch.allclose(made, code)
    assert torch.isfinite(latent.grad).all()


def test_gumbel_draws_by_the_scores_and_passes_soft_gradients() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(20000, 3).clone().requires_grad_()
    choices = gumbel(scores, 0.7)
    assert torch.equal(choices.sum(1), torch.ones(20000))
    assert ((choices == 0) | (choices == 1)).all()
    assert torch.allclose(choices.detach().mean(0), torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.02)
    (choices @ torch.tensor([1.0, 0.0, 0.0])).sum().backward()
    assert (scores.grad[:, 0] > 0).float().mean() > 0.9
