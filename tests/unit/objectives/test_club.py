"""CLUB against pairs, against the mutual information of normal variables, and fitted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from tessera.objectives.club import ConditionalNormal, club, likelihood_loss


def correlated(rows: int, correlation: float, dim: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x and y of standard normal axes, each of y correlated with its own of x."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def information(correlation: float, dim: int = 3) -> float:
    """Of `correlated`, in nats."""
    return -dim / 2 * math.log(1 - correlation**2)


def law(x: Tensor, correlation: float) -> tuple[Tensor, Tensor]:
    """The true q(y | x)."""
    return correlation * x, torch.full_like(x, math.log(1 - correlation**2))


def test_it_is_the_mean_over_all_pairs() -> None:
    x, y = correlated(7, 0.6)
    means, log_variances = x * 0.3, x.cos()
    logs = Normal(means[:, None], (log_variances / 2).exp()[:, None]).log_prob(y[None]).sum(2)  # [i, j]
    expected = logs.diagonal().mean() - logs.mean()
    torch.testing.assert_close(club(means, log_variances, y), expected)


def test_the_fit_is_the_likelihood() -> None:
    x, y = correlated(7, 0.6)
    means, log_variances = x * 0.3, x.cos()
    logs = Normal(means, (log_variances / 2).exp()).log_prob(y).sum(1).mean()
    constant = 3 / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(likelihood_loss(means, log_variances, y), -logs - constant)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_with_the_true_law_it_bounds_the_information_from_above(correlation: float) -> None:
    """Of normal variables it is r^2 / (1 - r^2) an axis, which is never below -log(1 - r^2) / 2."""
    x, y = correlated(200_000, correlation)
    means, log_variances = law(x, correlation)
    bound = float(club(means, log_variances, y))
    known = 3 * correlation**2 / (1 - correlation**2)
    assert bound == pytest.approx(known, rel=0.02, abs=0.01)
    assert bound >= information(correlation) - 0.01


def fitted(x: Tensor, y: Tensor, steps: int = 400) -> ConditionalNormal:
    torch.manual_seed(0)
    estimator = ConditionalNormal(x.shape[1], 32, y.shape[1]).double()
    optimizer = torch.optim.Adam(estimator.parameters(), lr=0.01)
    for step in range(steps):
        rows = slice(step * 256 % len(x), step * 256 % len(x) + 256)
        optimizer.zero_grad()
        likelihood_loss(*estimator(x[rows]), y[rows]).backward()
        optimizer.step()
    return estimator


def test_a_fitted_law_comes_near() -> None:
    """Fitted on what it is asked about it is near the true law's bound; fitted on something else it bounds nothing."""
    correlation = 0.7
    x, y = correlated(256 * 40, correlation)
    asked = correlated(20_000, correlation, seed=1)
    known = 3 * correlation**2 / (1 - correlation**2)
    estimator = fitted(x, y)
    with torch.no_grad():
        bound = float(club(*estimator(asked[0]), asked[1]))
        assert bound == pytest.approx(known, rel=0.1)
        assert bound > information(correlation)
    other = fitted(x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))])
    with torch.no_grad():
        assert float(club(*other(asked[0]), asked[1])) < information(correlation) / 2


def test_its_descent_takes_information_away() -> None:
    """y moves, the law stands still: what y tells of x shrinks."""
    x, y = correlated(2000, 0.8)
    means, log_variances = law(x, 0.8)
    y = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(club(means, log_variances, y), y)
    moved = (y - 200 * gradient).detach()
    before, after = ((x * other).mean() / other.std() for other in (y.detach(), moved))
    assert float(after) < float(before) - 0.02


def test_log_variances_have_bounds() -> None:
    estimator = ConditionalNormal(2, 4, 3)
    with torch.no_grad():
        estimator.log_variances[-1].bias.fill_(1e4)
    means, log_variances = estimator(torch.randn(5, 2))
    assert torch.isfinite(club(means, log_variances, torch.randn(5, 3)))
    assert (log_variances == 8).all()
