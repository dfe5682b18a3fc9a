"""Log-ratios, clipping and divergences against definitions, finite differences and the score-function estimate."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tessera.embedding.crrl_published import mean_over_all_tokens, token_divergence, token_log_probability
from tessera.embedding.policy import (
    clipped_share,
    clipped_surrogate,
    gaussian_divergence,
    gaussian_log_ratio,
    policy_loss,
)  # fmt: skip


def draws(items: int = 3, group: int = 4, thoughts: int = 2, width: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(items, 1, thoughts, width, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(items, group, thoughts, width, generator=generator, dtype=torch.float64)
    moved = old + 0.05 * torch.randn(old.shape, generator=generator, dtype=torch.float64)
    return old, noise, moved


def test_gaussian_ratio_and_divergence_are_those_of_the_densities() -> None:
    old, noise, new = draws()
    z = old + noise
    expected = (Normal(new, 0.3).log_prob(z) - Normal(old, 0.3).log_prob(z)).mean((-1, -2))
    torch.testing.assert_close(gaussian_log_ratio(new, old, noise, 0.3), expected)
    divergence = kl_divergence(Normal(new, 0.3), Normal(old, 0.3)).mean((-1, -2))
    torch.testing.assert_close(gaussian_divergence(new, old, 0.3), divergence)


def test_gradient_is_that_of_finite_differences() -> None:
    old, noise, new = draws()
    advantages = torch.tensor([[1.0, -1.0, 0.5, 0.0]] * 3, dtype=torch.float64)
    counted = torch.tensor([[False, True, True, True]] * 3)

    def loss(thoughts: torch.Tensor) -> torch.Tensor:
        ratio = gaussian_log_ratio(thoughts, old, noise, 0.3)
        return policy_loss(ratio, advantages, counted, 0.2, 0.28) + gaussian_divergence(thoughts, old, 0.3).mean()

    assert torch.autograd.gradcheck(loss, (new.requires_grad_(),))


def test_first_gradient_is_the_score_function_estimate() -> None:
    """At r = r_old the gradient is -mean A (z - r) / std^2: REINFORCE, whose expectation is the reward's slope."""
    generator = torch.Generator().manual_seed(1)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    old = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    noise = 0.2 * torch.randn(1, 400_000, 1, 3, generator=generator, dtype=torch.float64)
    rewards = (noise[:, :, 0] @ slope).reshape(1, -1)
    thoughts = old.clone().requires_grad_()
    ratio = gaussian_log_ratio(thoughts, old, noise, 0.2)
    assert not ratio.any()
    policy_loss(ratio, rewards, torch.ones_like(rewards, dtype=torch.bool), 0.2, 0.28).backward()
    assert thoughts.grad is not None
    # log-ratios are means over 3 dimensions
    torch.testing.assert_close(-3 * thoughts.grad.flatten(), slope, atol=0.03, rtol=0)


def test_clipping_stops_only_steps_that_went_far_enough() -> None:
    ratio = torch.tensor([0.5, 0.5, 1.0, 1.27, 1.29, 1.29]).log().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0, -1.0])
    found = clipped_surrogate(ratio, advantages, 0.2, 0.28)
    assert found.tolist() == pytest.approx([0.5, -0.8, 1.0, 1.27, 1.28, -1.29])
    found.sum().backward()
    assert ratio.grad is not None
    stopped = ratio.grad == 0
    assert stopped.tolist() == [False, True, False, False, True, False]
    assert torch.equal(stopped, clipped_share(ratio, advantages, 0.2, 0.28))


def test_tokens_before_the_thought_add_a_constant() -> None:
    """The published mean over all tokens, from the tokens at and after the thought alone."""
    generator = torch.Generator().manual_seed(2)
    log_ratio = (0.1 * torch.randn(2, 3, 2, generator=generator)).requires_grad_()
    advantages = torch.randn(2, 3, generator=generator)
    prefix = torch.tensor([4, 7])
    loss = mean_over_all_tokens(log_ratio, advantages, torch.ones(2, 3, dtype=torch.bool), 0.2, 0.28, prefix)
    total, count = torch.zeros(()), 0
    for item in range(2):
        for rollout in range(3):
            row = torch.cat([torch.zeros(int(prefix[item])), log_ratio[item, rollout]])
            total = total + clipped_surrogate(row, advantages[item, rollout].expand(len(row)), 0.2, 0.28).sum()
            count += len(row)
    torch.testing.assert_close(loss, -total / count)
    (gradient,) = torch.autograd.grad(loss, log_ratio)
    (plain,) = torch.autograd.grad(-total / count, log_ratio)
    torch.testing.assert_close(gradient, plain)


def test_token_likelihoods() -> None:
    logits = torch.randn(2, 4, 3, 7, generator=torch.Generator().manual_seed(0))
    told = logits.log_softmax(-1)
    expected = torch.stack([told[..., 0, 5], told[..., 1, 5], told[..., 2, 1]], -1)
    torch.testing.assert_close(token_log_probability(logits, torch.tensor([5, 5, 1])), expected)


def test_token_divergence_is_never_negative() -> None:
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert (token_divergence(a, b) >= 0).all()
    assert not token_divergence(a, a).any()


@pytest.mark.parametrize("width", [96, 896])
def test_ratios_do_not_depend_on_the_width(width: int) -> None:
    """A move of every dimension by half a deviation: the joint ratio leaves any range, the mean does not."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, 500, 1, width, generator=generator)
    old = torch.zeros(1, 1, 1, width)
    log_ratio = gaussian_log_ratio(old + 0.05, old, noise, 0.1)
    assert (width * log_ratio).abs().median() > 5
    assert log_ratio.exp().sub(1).abs().median() < 0.2
