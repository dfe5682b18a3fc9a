"""The gradient of the cross-entropy by a scale of its scores, in chunks, with its own gradient made on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_CHUNK = 2**20
"""Scores in memory at once."""


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


class GradientByScale:
    """That of the cross-entropy over the catalogue, whose own gradient is made on the way and cannot be taken twice."""

    def __init__(self, settings: object = None, popularity: Tensor | None = None) -> None:
        """Neither is read: losses are made so."""

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        with torch.autocast(states.device.type, enabled=False):
            full = torch.promote_types(states.dtype, torch.float32)
            total: Tensor = _ScaleGradientSum.apply(  # type: ignore[no-untyped-call]
                states.to(full), vectors[1:].to(full), targets - 1
            )
        return total
