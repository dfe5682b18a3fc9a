"""The one door through which items enter a model."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ItemEncoder(nn.Module, ABC):
    """Makes the vectors of all items once a step, for the histories and for the scores alike."""

    @abstractmethod
    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors; row 0 is the padding."""

    def further_loss(self, vectors: Tensor, targets: Tensor) -> Tensor | None:
        """A loss of its own that is added to the mean loss of a step; None where there is none.

        Args:
            vectors: (items + 1, dim) what `forward` gave.
            targets: (targets,) item ids that the step predicts.
        """
        return None
