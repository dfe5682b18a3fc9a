"""What is made likelier, and how far: the Gaussian and the token policy of stage II of ReaEmb, and PPO's clipping.

Gaussian policy: the action is the thought z = r_old + noise itself, its density N(z; r, std^2) is known exactly, and
the gradient reaches the reasoning attention without passing through the language model. Token policy, as published:
noise is added to a thought, and the tokens that the language model reads after it are made likelier.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.language.states import widen


def gaussian_log_ratio(thoughts: Tensor, old: Tensor, noise: Tensor, std: float) -> Tensor:
    """Mean over dimensions of log N(z; r, std^2) - log N(z; r_old, std^2) at z = r_old + noise.

    With s = r - r_old, (-(z - r)^2 + (z - r_old)^2) / 2 std^2 = (noise s - s^2 / 2) / std^2, which does not take the
    difference of two large sums. The mean instead of the sum makes a ratio that does not depend on the width, as
    sequence-level policies do (GSPO, Zheng et al. 2025). AdamW moves all dimensions of a thought at once: after a step
    of 1e-4 at width 896 the sum was 11 to 650 (ratios beyond any clipping range, and beyond float32), the mean 0.01 to
    0.7; at width 96 the sum was 0.1 to 1.2.

    Args:
        thoughts: (items, 1, thoughts, width) r, with gradient.
        old: (items, 1, thoughts, width) r_old, without.
        noise: (items, group, thoughts, width).
        std: standard deviation of the noise.
    Returns:
        (items, group).
    """
    moved = thoughts - old
    return ((noise * moved - moved.square() / 2) / std**2).mean((-1, -2))


def gaussian_divergence(thoughts: Tensor, reference: Tensor, std: float) -> Tensor:
    """KL between Gaussians of equal deviation, a dimension: (r - r_ref)^2 / 2 std^2; (items, ...) from (..., J, d)."""
    return ((thoughts - reference).square() / (2 * std**2)).mean((-1, -2))


def token_divergence(log_probability: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL from tokens as in GRPO: exp(x) - x - 1 with x = log p_ref - log p."""
    apart = reference - log_probability
    return apart.exp() - apart - 1


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """min(w A, clip(w, 1 - low, 1 + high) A) with w = exp(log ratio), elementwise (PPO, equation 7)."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def clipped_share(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Which elements pass no gradient because their ratio has gone far enough in the direction of their advantage."""
    ratio = log_ratio.exp()
    return ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))


def policy_loss(
    log_ratio: Tensor, advantages: Tensor, counted: Tensor, low: float, high: float, prefix: Tensor | None = None
) -> Tensor:
    """Minus the mean clipped surrogate.

    Args:
        log_ratio: (items, group), or (items, group, tokens) for the token policy.
        advantages: (items, group).
        counted: (items, group) whether a rollout counts.
        low, high: clipping range.
        prefix: (items,) tokens before the first thought, where the mean is taken over all tokens, as published: their
            ratio is exactly 1 and their gradient exactly 0, so they only add a constant and shrink the gradient.
    """
    if log_ratio.ndim == 2:
        log_ratio = log_ratio[..., None]
    surrogate = clipped_surrogate(log_ratio, advantages[..., None], low, high)
    weight = counted.to(surrogate.dtype)[..., None]
    total = (surrogate * weight).sum()
    count = weight.sum() * surrogate.shape[-1]
    if prefix is not None:
        before = prefix.to(surrogate.dtype)[:, None]
        total = total + (before * advantages * weight[..., 0]).sum()
        count = count + (before * weight[..., 0]).sum()
    return -total / count


def token_log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log likelihood of tokens (length,) under logits (..., length, vocabulary), in at least float32: (..., length)."""
    wide = widen(logits).log_softmax(-1)
    return wide.gather(-1, tokens.expand(logits.shape[:-1])[..., None]).squeeze(-1)
