"""A backbone of gated means."""

from __future__ import annotations

import torch
from mine.gated_settings import GatedMean
from torch import Tensor, nn

from tessera.recommenders.backbones.base import CausalBackbone


class GatedMeanBackbone(CausalBackbone):
    """Each position holds the weighted mean of the item vectors up to it."""

    def __init__(self, settings: GatedMean) -> None:
        super().__init__()
        self.dim, self.max_length, self.floor = settings.dim, settings.max_length, settings.floor
        self.gate = nn.Linear(settings.dim, 1)
        self.project = nn.Linear(settings.dim, settings.dim)

    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states."""
        weights = self.floor + torch.sigmoid(self.gate(inputs))
        states: Tensor = self.project((weights * inputs).cumsum(1) / weights.cumsum(1))
        return states
