"""Generalised binary cross-entropy (gSASRec)."""

from __future__ import annotations

from torch import Tensor

from tessera.objectives import sampled
from tessera.objectives.losses.base import scores, uniform
from tessera.settings.losses.gbce import GBCE


class GBCELoss:
    """The target against uniform negatives, calibrated."""

    def __init__(self, settings: GBCE, popularity: Tensor) -> None:
        self.settings = settings
        self.items = len(popularity) - 1
        self.beta = sampled.gbce_beta(settings.negatives, self.items, settings.calibration)

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        positive = (states * vectors[targets]).sum(1)
        if self.settings.shared:
            ids = uniform((1, self.settings.negatives), self.items, states.device)
            negative = states @ vectors[ids[0]].T
        else:
            ids = uniform((len(targets), self.settings.negatives), self.items, states.device)
            negative = scores(states, vectors, ids)
        return sampled.gbce(positive, negative, self.beta, ids == targets[:, None])
