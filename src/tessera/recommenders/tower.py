"""Items with a backbone of their own: what systems of several towers are put together from."""

from __future__ import annotations

from torch import Tensor, nn

from tessera.recommenders.backbones.base import Backbone


class Tower(nn.Module):
    """Items, and a backbone of their own that reads histories of them."""

    def __init__(self, items: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.items, self.backbone = items, backbone

    def vectors(self) -> Tensor:
        """(items + 1, dim) item vectors; row 0 is the padding."""
        made: Tensor = self.items()
        return made
