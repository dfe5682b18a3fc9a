"""Bayesian personalised ranking."""

from __future__ import annotations

from torch import Tensor

from tessera.objectives import sampled
from tessera.objectives.losses.pairwise_base import Pairwise


class BPRLoss(Pairwise):
    """Bayesian personalised ranking."""

    def compare(self, positive: Tensor, negative: Tensor, collision: Tensor) -> Tensor:
        """See `Pairwise`."""
        return sampled.bpr(positive, negative, collision)
