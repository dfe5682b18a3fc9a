"""Binary cross-entropy, as in SASRec."""

from __future__ import annotations

from torch import Tensor

from tessera.objectives import sampled
from tessera.objectives.losses.pairwise_base import Pairwise


class BCELoss(Pairwise):
    """Binary cross-entropy, as in SASRec."""

    def compare(self, positive: Tensor, negative: Tensor, collision: Tensor) -> Tensor:
        """See `Pairwise`."""
        return sampled.gbce(positive, negative, 1.0, collision)
