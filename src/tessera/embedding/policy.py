"""What is made likelier, and how far: the Gaussian policy of stage II of ReaEmb, and PPO's clipping.

The action is the thought z = r_old + noise itself, its density N(z; r, std^2) is known exactly, and the gradient
reaches the reasoning attention without passing through the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """min(w A, clip(w, 1 - low, 1 + high) A) with w = exp(log ratio), elementwise (PPO, equation 7)."""
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def clipped_share(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Which elements pass no gradient because their ratio has gone far enough in the direction of their advantage."""
    ratio = log_ratio.exp()
    return ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))


def surrogate_sum(
    log_ratio: Tensor, advantages: Tensor, counted: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Sum of the clipped surrogates of rollouts that count, and how many there are; arguments as in `policy_loss`."""
    if log_ratio.ndim == 2:
        log_ratio = log_ratio[..., None]
    surrogate = clipped_surrogate(log_ratio, advantages[..., None], low, high)
    weight = counted.to(surrogate.dtype)[..., None]
    return (surrogate * weight).sum(), weight.sum() * surrogate.shape[-1]


def policy_loss(log_ratio: Tensor, advantages: Tensor, counted: Tensor, low: float, high: float) -> Tensor:
    """Minus the mean clipped surrogate.

    Args:
        log_ratio: (items, group), or (items, group, tokens) where a rollout has several actions.
        advantages: (items, group).
        counted: (items, group) whether a rollout counts.
        low, high: clipping range.
    """
    total, count = surrogate_sum(log_ratio, advantages, counted, low, high)
    return -total / count
