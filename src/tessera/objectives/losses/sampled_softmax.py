"""Sampled softmax with the correction by log Q."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.objectives import sampled
from tessera.settings.losses.sampled_softmax import SampledSoftmax


class SampledSoftmaxLoss:
    """The target against negatives that all targets of a step share."""

    def __init__(self, settings: SampledSoftmax, popularity: Tensor) -> None:
        self.settings = settings
        items = len(popularity) - 1
        uniform = torch.full((items,), 1 / items, dtype=torch.float64)
        popular = popularity[1:].double() / popularity.sum().clamp(min=1)
        weight = {"uniform": 0.0, "popularity": 1.0, "mixed": 0.5}[settings.distribution]
        probability = (1 - weight) * uniform + weight * popular
        self.log_expected = (settings.negatives * probability).log().float()
        self.cumulative = probability.cumsum(0)

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        # the inverse of the cumulative distribution: torch.multinomial stops at 2^24 categories and is slower
        uniform = torch.rand(self.settings.negatives, dtype=torch.float64)
        drawn = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1]).clamp(max=len(self.cumulative) - 1)
        # drawn here, wherever the states are; nobody waits until a GPU has them
        log_expected = self.log_expected[drawn].to(states.device, non_blocking=True)
        ids = (drawn + 1).to(states.device, non_blocking=True)
        positive = (states * vectors[targets]).sum(1)
        negative = states @ vectors[ids].T
        return sampled.sampled_softmax(positive, negative, log_expected, ids[None] == targets[:, None])
