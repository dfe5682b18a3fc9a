"""Invariance of a predictor over environments: variance of risks, and the gradient penalty of IRMv1.

V-REx: Krueger et al., ICML 2021. IRMv1: Arjovsky et al., 2019: the squared gradient of each environment's risk by a
scale w of the scores, at w = 1: no environment could do better by a scale of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from tessera.objectives.catalogue import WithoutCold
from tessera.objectives.losses.base import CatalogueLoss
from tessera.settings.losses.base import Loss

_CHUNK = 2**20
"""Scores in memory at once."""


def variance_of_risks(risks: Tensor) -> Tensor:
    """() the unbiased variance of risks (environments,); 0 of fewer than two."""
    return risks.var() if len(risks) > 1 else risks.sum() * 0


def gradient_penalty(gradients: Tensor) -> Tensor:
    """() the sum of squares of the risks' gradients by the scale, (environments,)."""
    return gradients.square().sum()


class _ScaleGradientSum(torch.autograd.Function):
    """d/dw of the summed cross-entropy of w times the scores: sum over targets of E_p[s] - s of the target."""

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        grad_states, grad_items = torch.empty_like(states), torch.zeros_like(items)
        total = states.new_zeros((), dtype=torch.float64 if states.device.type == "cpu" else states.dtype)
        rows = max(1, _CHUNK // max(1, len(items)))
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            logits = states[part] @ items.T
            probabilities = logits.softmax(1)
            mean = (probabilities * logits).sum(1, keepdim=True)
            total += (mean - logits.gather(1, target)).sum(dtype=total.dtype)
            # dE_p[s] / ds_j = p_j (1 + s_j - E_p[s])
            errors = probabilities * (1 + logits - mean)
            errors.scatter_add_(1, target, torch.full_like(mean, -1.0))
            grad_states[part] = errors @ items
            grad_items += errors.T @ states[part]
        ctx.save_for_backward(grad_states, grad_items)
        return total.to(states.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_states, grad_items = ctx.saved_tensors
        return grad_states * gradient, grad_items * gradient, None


class _OfCrossEntropy:
    """The gradient by the scale of the cross-entropy, whose own gradient is made on the way and not twice."""

    def __init__(self, settings: Loss, popularity: Tensor) -> None:
        self.settings = settings

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        with torch.autocast(states.device.type, enabled=False):
            full = torch.promote_types(states.dtype, torch.float32)
            total: Tensor = _ScaleGradientSum.apply(  # type: ignore[no-untyped-call]
                states.to(full), vectors[1:].to(full), targets - 1
            )
        return total


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
        if settings.kind == "cross_entropy":
            left_out = isinstance(loss, WithoutCold)
            made: CatalogueLoss = WithoutCold(settings, _OfCrossEntropy, popularity) if left_out else _OfCrossEntropy(
                settings, popularity
            )  # fmt: skip
            self.closed = made

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
