"""The Stein discrepancy against pairs, against a law whose score is known, and the fitted score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tessera.objectives.stein import (
    Score,
    median_bandwidth,
    score_matching,
    stein_discrepancy,
    stein_kernel,
)


def normal(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(mean: Tensor | float = 0.0, variances: Tensor | float = 1.0) -> Score:
    """The score of a normal law with independent axes, known exactly."""
    return lambda x: -(x - mean) / variances


def pair(x: Tensor, y: Tensor, score: Score, width: float, published: bool = False) -> Tensor:
    """u(x, y) of two rows, term by term; or as the third-party code has it."""
    apart, dim = x - y, len(x)
    kernel = torch.exp(-apart.square().sum() / (2 * width**2))
    s, t = score(x[None])[0], score(y[None])[0]
    if published:  # no s(x).D, the other sign before s(y).D, the trace turned round
        return kernel * (s @ t + t @ apart / width**2 - dim / width**2 + apart.square().sum() / width**4)
    return kernel * (
        s @ t + s @ apart / width**2 - t @ apart / width**2 + dim / width**2 - apart.square().sum() / width**4
    )


def test_it_is_the_derivatives_that_define_it() -> None:
    """u = s.s' k + s.dk/dy + s'.dk/dx + trace d2k/dxdy, the derivatives by autograd."""
    x, y = (row.requires_grad_() for row in normal(2, 4))
    score, width = gaussian(0.3, torch.tensor([0.5, 1.0, 2.0, 1.5], dtype=torch.float64)), 1.3
    kernel = torch.exp(-(x - y).square().sum() / (2 * width**2))
    by_x, by_y = torch.autograd.grad(kernel, (x, y), create_graph=True)
    trace = sum(torch.autograd.grad(by_y[axis], x, retain_graph=True)[0][axis] for axis in range(4))
    s, t = score(x[None])[0], score(y[None])[0]
    expected = s @ t * kernel + s @ by_y + t @ by_x + trace
    both = torch.stack([x, y]).detach()
    assert float(stein_kernel(both, score(both), width)[0, 1]) == pytest.approx(float(expected.detach()), rel=1e-10)
    assert float(pair(x, y, score, width).detach()) == pytest.approx(float(expected.detach()), rel=1e-10)


def test_products_are_pairs_with_their_gradients() -> None:
    x = (normal(9, 3) + 50).requires_grad_()
    score = gaussian(50.2, 0.8)
    ours = stein_discrepancy(x, score, 1.1)
    terms = [pair(x[i], x[j], score, 1.1) for i in range(9) for j in range(9) if i != j]
    plain = torch.stack(terms).mean()
    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-8)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (ours, plain)), rtol=1e-7, atol=1e-10)


def test_of_its_own_law_it_is_about_zero_and_the_published_form_is_not() -> None:
    """E[u] = 0 for x, y of the law, at the n, dim and h of the specification."""
    x, score, width = normal(3000, 4), gaussian(), 1.5
    assert abs(float(stein_discrepancy(x, score, width))) < 2e-3
    y = normal(3000, 4, seed=1)
    apart = (x - y).square().sum(1)
    kernel = torch.exp(-apart / (2 * width**2))
    along = -(y * (x - y)).sum(1) / width**2
    published = (kernel * ((x * y).sum(1) + along - 4 / width**2 + apart / width**4)).mean()
    rows = torch.stack([pair(x[i], y[i], score, width, published=True) for i in range(50)])
    assert float(rows.mean()) == pytest.approx(
        float((kernel * ((x * y).sum(1) + along - 4 / width**2 + apart / width**4))[:50].mean()), rel=1e-9
    )
    correct = torch.stack([pair(x[i], y[i], score, width) for i in range(3000)])
    assert abs(float(correct.mean())) < 4 * float(correct.std()) / 3000**0.5
    assert abs(float(published)) > 0.2, "the bias of the published form"


@pytest.mark.parametrize("axis", ["mean", "variance"])
def test_another_law_is_told_and_descent_finds_it(axis: str) -> None:
    x = normal(400, 3)
    shifted = x + 1.0 if axis == "mean" else x * 2
    assert float(stein_discrepancy(shifted, gaussian())) > 0.1
    moved = shifted.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        stein_discrepancy(moved, gaussian()).clamp(min=0).backward()
        optimizer.step()
    if axis == "mean":
        assert float(moved.detach().mean(0).abs().max()) < 0.25
    assert float(stein_discrepancy(moved.detach(), gaussian())) < 0.02


def test_the_bandwidth_is_the_median_without_a_gradient() -> None:
    x = normal(41, 5)
    pairs = [float((x[i] - x[j]).square().sum()) for i in range(41) for j in range(i)]
    ordered = sorted(pairs)
    width = median_bandwidth(x.requires_grad_())
    assert float(width) == pytest.approx((ordered[(len(ordered) - 1) // 2] / 2) ** 0.5)
    assert not width.requires_grad
    assert float(median_bandwidth(x * 1e-6)) == pytest.approx(0.1)
    assert float(median_bandwidth(x * 1e6)) == pytest.approx(10)


def test_rows_that_are_all_alike_have_a_finite_gradient() -> None:
    x = torch.ones(5, 4, requires_grad=True)
    stein_discrepancy(x, gaussian()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (4,)])
def test_too_few_rows_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected two rows or more"):
        stein_discrepancy(torch.zeros(shape), gaussian())


def test_the_fitted_score_is_that_of_the_noised_law() -> None:
    """Of N(mean, 1) with noise of size 0.5 the score is -(x - mean) / 1.25: a linear map must find it."""
    torch.manual_seed(0)
    x = normal(1000, 2)
    x = (x - x.mean(0)) / x.std(0) + 0.7
    score = nn.Linear(2, 2).double()
    optimizer = torch.optim.Adam(score.parameters(), lr=0.02)
    for step in range(300):
        optimizer.zero_grad()
        score_matching(x, score, normal(1000, 2, seed=step + 10), 0.5).backward()
        optimizer.step()
    torch.testing.assert_close(score.weight.detach(), -torch.eye(2, dtype=torch.float64) / 1.25, atol=0.1, rtol=0)
    torch.testing.assert_close(score.bias.detach(), torch.full((2,), 0.7 / 1.25, dtype=torch.float64), atol=0.1, rtol=0)


def test_score_matching_gives_the_vectors_no_gradient_and_is_bounded() -> None:
    x = normal(50, 3).requires_grad_()
    noise = normal(50, 3, seed=3)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    score_matching(x, lambda rows: -scale * rows, noise, 0.1).backward()
    assert x.grad is None
    assert scale.grad is not None
    values = [float(score_matching(x, lambda rows, by=by: -by * rows, noise, 0.1)) for by in (1.0, 1e3, 1e6)]
    assert values[0] < values[1] < values[2], "a score without bound is no better"
