"""PAD with the published habits that are thought wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.objectives.losses.base import uniform
from tessera.recommenders.item_encoders.parts import of_all_processes
from tessera.recommenders.systems.pad import PAD


class PublishedPAD(PAD):
    """Every slot of a batch is aligned: padding, items as often as they occur, and a random negative a slot."""

    def _members(self, items: Tensor) -> Tensor:
        """(2 n,) the items of all n slots, and as many drawn at random where a slot holds an item."""
        whole = of_all_processes(items.flatten())
        drawn = of_all_processes(uniform(tuple(items.flatten().shape), self.catalogue_size, items.device))
        return torch.cat([whole, torch.where(whole > 0, drawn, 0)])
