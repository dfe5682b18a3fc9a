"""Items as trainable vectors."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.settings.items.ids import IdItems


class IdItemEncoder(ItemEncoder):
    """A trainable vector an item."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(items + 1, dim) * 0.02)
        with torch.no_grad():
            self.weight[0] = 0

    @classmethod
    def build(cls, settings: IdItems, inputs: RunInputs, items: int, dim: int) -> IdItemEncoder:
        """See `ItemEncoder.build`."""
        return cls(items, dim)

    def item_rows(self) -> Collection[str]:
        """All that it has."""
        return ["weight"]

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors."""
        return self.weight
