"""Softmax cross-entropy over the whole catalogue."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from tessera.objectives.cross_entropy import cross_entropy
from tessera.objectives.scale_gradient import GradientByScale
from tessera.settings.losses.cross_entropy import CrossEntropy


class CrossEntropyLoss:
    """The target against all items."""

    GRADIENT_BY_SCALE: ClassVar[type[GradientByScale]] = GradientByScale
    """Its gradient by a scale of the scores, which autograd cannot make: that of a loss without one it can."""

    def __init__(self, settings: CrossEntropy, popularity: Tensor) -> None:
        self.settings = settings

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        return cross_entropy(states, vectors[1:], targets - 1)
