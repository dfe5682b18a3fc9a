"""Invariance of a predictor over environments: variance of risks, and the gradient penalty of IRMv1.

V-REx: Krueger et al., ICML 2021. IRMv1: Arjovsky et al., 2019: the squared gradient of each environment's risk by a
scale w of the scores, at w = 1: no environment could do better by a scale of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.objectives.catalogue import WithoutCold
from tessera.objectives.losses.base import CatalogueLoss
from tessera.settings.kinds import implementation
from tessera.settings.losses.base import Loss


def variance_of_risks(risks: Tensor) -> Tensor:
    """() the unbiased variance of risks (environments,); 0 of fewer than two."""
    return risks.var() if len(risks) > 1 else risks.sum() * 0


def gradient_penalty(gradients: Tensor) -> Tensor:
    """() the sum of squares of the risks' gradients by the scale, (environments,)."""
    return gradients.square().sum()


class RiskAndGradient:
    """A catalogue loss, and its gradient by a scale of the scores."""

    def __init__(self, settings: Loss, loss: CatalogueLoss, popularity: Tensor) -> None:
        """
        Args:
            settings: of the loss.
            loss: made from them.
            popularity: (items + 1,) training interactions an item.
        """
        self.loss = loss
        self.closed: CatalogueLoss | None = None
        made = getattr(implementation(settings), "GRADIENT_BY_SCALE", None)
        if made is not None:
            self.closed = WithoutCold(settings, made, popularity) if isinstance(loss, WithoutCold) else made()

    def __call__(
        self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor
    ) -> tuple[Tensor, Tensor]:
        """() the sum of the loss over targets, () its gradient by the scale, which can be differentiated once more.

        Arguments as of `CatalogueLoss`.
        """
        if self.closed is not None:
            arguments = states, vectors, targets, owners, histories
            return self.loss(*arguments), self.closed(*arguments)
        scale = states.new_ones((), requires_grad=True)
        total = self.loss(states * scale, vectors, targets, owners, histories)
        (gradient,) = torch.autograd.grad(total, scale, create_graph=True)
        return total, gradient
