"""Losses on sampled negatives: sampled softmax with log Q, gBCE, BCE and BPR. Each returns the sum over targets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_softmax(positive: Tensor, negative: Tensor, log_expected: Tensor, collision: Tensor) -> Tensor:
    """Softmax over the target and sampled negatives, each negative's score lowered by the log of its expected count.

    With the correction the loss estimates the full softmax (Bengio and Senecal 2008, eq. 4; Yi et al. 2019, eq. 3).

    Args:
        positive: (targets,) scores of the targets.
        negative: (targets, negatives) scores of the negatives.
        log_expected: (negatives,) or (targets, negatives) log of how often each is expected among the negatives.
        collision: (targets, negatives) true where a negative is the target itself; those do not count.
    """
    corrected = (negative - log_expected).masked_fill(collision, -math.inf)
    everything = torch.cat([positive[:, None], corrected], dim=1)
    return (torch.logsumexp(everything, dim=1) - positive).sum()


def gbce_beta(negatives: int, items: int, calibration: float) -> float:
    """Exponent of the positive probability in gBCE (Petrov and Macdonald, RecSys 2023, eq. 9), in (0, 1]."""
    # more negatives than other items sample no more than all of them
    rate = min(1.0, negatives / max(1, items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def gbce(positive: Tensor, negative: Tensor, beta: float, collision: Tensor | None = None) -> Tensor:
    """Generalised BCE: -(beta log sigmoid(s+) + sum log(1 - sigmoid(s-))), which is (negatives + 1) times eq. 10 of
    Petrov and Macdonald (RecSys 2023), a mean.

    Args:
        positive: (targets,) scores of the targets.
        negative: (targets, negatives) scores of the negatives.
        beta: see `gbce_beta`; 1 is plain binary cross-entropy.
        collision: (targets, negatives) true where a negative must not count.
    """
    against = F.softplus(negative)
    if collision is not None:
        against = against.masked_fill(collision, 0.0)
    return beta * F.softplus(-positive).sum() + against.sum()


def bpr(positive: Tensor, negative: Tensor, collision: Tensor | None = None) -> Tensor:
    """BPR (Rendle et al. 2009, section 4): -log sigmoid(s+ - s-), mean over a target's negatives."""
    losses = F.softplus(negative - positive[:, None])
    if collision is not None:
        losses = losses.masked_fill(collision, 0.0)
    return losses.mean(dim=1).sum()
