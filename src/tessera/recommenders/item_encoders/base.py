"""The one door through which items enter a model."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ItemEncoder(nn.Module, ABC):
    """Makes the vectors of all items once a step, for the histories and for the scores alike."""

    @abstractmethod
    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors; row 0 is the padding."""
