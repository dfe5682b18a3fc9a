"""Rewards of rollouts and their advantages (ReaEmb, section 2.4)."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 1e-6
"""A deviation below this share of the numbers themselves is rounding."""


def expected_ranks(similarity: Tensor) -> Tensor:
    """Ranks from 0, the most similar first; equal ones share the mean of their ranks, in whichever order they stand.

    Args:
        similarity: (..., candidates).
    Returns:
        (..., candidates) in the same type.
    """
    own, others = similarity[..., :, None], similarity[..., None, :]
    above = (others > own).sum(-1)
    equal = (others == own).sum(-1) - 1
    return above.to(similarity.dtype) + equal.to(similarity.dtype) / 2


def rank_reward(similarity: Tensor, weights: Tensor) -> Tensor:
    """Sum over positives of weight / (1 + log2(rank + 2)): 0.5 where the only positive stands first.

    Args:
        similarity: (items, group, candidates) of every rollout with the candidates of its item.
        weights: (items, candidates) share of each positive, 0 at negatives.
    Returns:
        (items, group).
    """
    gains = 1 / (1 + torch.log2(expected_ranks(similarity) + 2))
    return (gains * weights[:, None]).sum(-1)


def ndcg_reward(similarity: Tensor, weights: Tensor) -> Tensor:
    """NDCG of an item's own neighbours among its candidates, 1 where the positives stand first, by their shares.

    Gains are the shares of the positives; shapes as in `rank_reward`. Of one positive it is 1 / log2(rank + 2).
    """
    gained = (weights[:, None] / torch.log2(expected_ranks(similarity) + 2)).sum(-1)
    ranks = torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype)
    ideal = (weights.sort(-1, descending=True).values / torch.log2(ranks + 2)).sum(-1)
    return gained / ideal[:, None]


def standardized(similarity: Tensor) -> Tensor:
    """Similarities (items, group, candidates) over their standard deviation among an item's candidates.

    The deviation is the mean over an item's rollouts, without gradient. A softmax of dot products of language model
    states is all or nothing otherwise, and one of cosines nearly flat.
    """
    scale = similarity.detach().std(-1, correction=0).mean(-1)[:, None, None]
    # candidates that tell the same differ by rounding alone, which is nothing to magnify
    tied = scale <= _ROUNDING * similarity.detach().abs().mean((-2, -1), keepdim=True)
    return similarity / scale.masked_fill(tied, 1.0)


def softmax_reward(similarity: Tensor, weights: Tensor) -> Tensor:
    """The positives' share of a softmax over the candidates, standardized, which moves where ranks do not.

    Shapes as in `rank_reward`.
    """
    return (standardized(similarity).softmax(-1) * (weights > 0)[:, None]).sum(-1)


def supervised_loss(similarity: Tensor, weights: Tensor, temperature: float | None = None) -> Tensor:
    """Cross-entropy (items,) of a softmax over the candidates with the positives' shares.

    Args:
        similarity: (items, candidates).
        weights: (items, candidates) share of each positive, 0 at negatives.
        temperature: divides the similarities, as in InfoNCE; None standardizes them as the reward does. Standardized
            similarities are the same however close all vectors lie, so they do not keep what makes them from drawing
            all vectors together.
    """
    scores = standardized(similarity[:, None])[:, 0] if temperature is None else similarity / temperature
    return -(weights * scores.log_softmax(-1)).sum(-1)


def group_advantages(rewards: Tensor) -> Tensor:
    """(R - mean) / (std + 1e-4) over the rollouts of an item (items, group); 0 where all have the same reward.

    The noise-free rollout counts in mean and deviation, whether or not it counts in the gradient: a baseline that does
    not depend on the other rollouts' noise leaves their expected gradient as it is, and two rollouts are enough.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = centred / (rewards.std(1, keepdim=True) + 1e-4)
    # a mean of equal numbers is not always that number
    return advantages.masked_fill(degenerate(rewards)[:, None], 0.0)


def degenerate(rewards: Tensor) -> Tensor:
    """(items,) whether all rollouts of an item have the same reward: nothing is learned from them."""
    return rewards.amax(1) == rewards.amin(1)
