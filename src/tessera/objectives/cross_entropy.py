"""Cross-entropy over the whole catalogue, in chunks, with the gradient made on the way.

The softmax of T targets over N items costs three passes over a T x N matrix in autograd, and its memory. Here a chunk
of rows is scored, turned into probabilities in place, and multiplied back into both gradients while it is still in
the cache; nothing of size T x N is ever kept. Values and gradients are those of the plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# Bytes of one chunk of scores: what stays in a CPU's cache, and what fills a GPU.
_CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**28}


class WithGradients(torch.autograd.Function):
    """A sum whose forward pass has made the gradients of states and items, and saved them."""

    @classmethod
    def of(cls, states: Tensor, items: Tensor, targets: Tensor, rows: int | None, width: int = 1) -> Tensor:
        """() the sum over chunks of `rows` targets, by default as many as keep `width` scores an item in the cache.

        Under autocast the products are in its dtype; sums are in float32.
        """
        device = states.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            states, items = states.to(dtype), items.to(dtype)
        if rows is None:
            rows = max(16, _CHUNK_BYTES[device] // (items.element_size() * len(items) * width))
        with torch.autocast(device, enabled=False):
            total: Tensor = cls.apply(states, items, targets, rows)  # type: ignore[no-untyped-call]
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():  # by `create_graph`; what is saved has no graph
            raise RuntimeError(
                "the cross-entropy over the catalogue can be differentiated once: its gradient is made on the way; a "
                "loss that uses it gives its gradient by a scale of the scores as GRADIENT_BY_SCALE"
            )
        grad_states, grad_items = ctx.saved_tensors
        # autograd asks for the dtype of the inputs
        return (grad_states * gradient).to(grad_states.dtype), (grad_items * gradient).to(grad_states.dtype), None, None


class _CrossEntropySum(WithGradients):
    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, items: Tensor, targets: Tensor, rows: int) -> Tensor:
        # sums over targets and items in 16 bits would lose what a chunk adds to them
        full = torch.promote_types(states.dtype, torch.float32)
        grad_states = torch.empty_like(states)
        grad_items = torch.zeros_like(items, dtype=full)
        hits = states.new_empty((len(targets), 1), dtype=full)
        # one piece of memory for all chunks: half as much to keep in a CPU's cache, the same numbers
        own = states.device.type == "cpu" and full == states.dtype
        room = states.new_empty(min(rows, len(targets)), len(items)) if own else None
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            # one fused kernel for max, exp and sum; its logarithm is exact enough where it is not tiny
            if room is None:
                probabilities = torch.softmax(states[part] @ items.T, dim=1, dtype=full)
            else:
                logits = torch.mm(states[part], items.T, out=room[: len(target)])
                probabilities = torch.softmax(logits, dim=1, out=logits)
            hits[part] = probabilities.gather(1, target)
            probabilities.scatter_add_(1, target, torch.full_like(hits[part], -1.0))
            errors = probabilities.to(states.dtype)
            torch.mm(errors, items, out=grad_states[part])
            if full == states.dtype:
                grad_items.addmm_(errors.T, states[part])
            else:
                grad_items += errors.T @ states[part]
        # the product as it was: one of fewer rows may round otherwise
        total = sum_of_losses(hits, targets, rows, lambda part: states[part] @ items.T)
        ctx.save_for_backward(grad_states, grad_items)
        return total.to(full)


def sum_of_losses(hits: Tensor, targets: Tensor, rows: int, logits_of: Callable[[slice], Tensor]) -> Tensor:
    """() the sum of -log of the targets' probabilities; those too small for a logarithm are made of logits again.

    Args:
        hits: (targets, 1) probabilities of the targets.
        targets: (targets,) row numbers of items.
        rows: targets of a chunk.
        logits_of: (rows, items) the logits of a chunk, as they were.
    """
    losses = -hits.log()
    total = hits.new_zeros((), dtype=torch.float64 if hits.device.type == "cpu" else hits.dtype)
    # asked once, not in every chunk: a GPU has all chunks before anybody waits for it
    for start in _chunks_with((hits < 1e-20).squeeze(1), rows):
        part = slice(start, start + rows)
        lost = (hits[part] < 1e-20).squeeze(1)
        logits = logits_of(part)
        chosen = logits[lost].gather(1, targets[part, None][lost])
        losses[part][lost] = (torch.logsumexp(logits[lost], 1, keepdim=True) - chosen).to(hits.dtype)
    for each in torch.split(losses, rows):
        total += each.sum(dtype=total.dtype)
    return total


def _chunks_with(mask: Tensor, rows: int) -> list[int]:
    """First rows of the chunks in which `mask` (targets,) holds."""
    return sorted({row // rows * rows for row in mask.nonzero()[:, 0].tolist()})


def cross_entropy(states: Tensor, items: Tensor, targets: Tensor, chunk_rows: int | None = None) -> Tensor:
    """Sum over targets of -log softmax(states @ items.T)[target].

    Args:
        states: (targets, dim) hidden states.
        items: (items, dim) vectors of the whole catalogue.
        targets: (targets,) row numbers into `items`.
        chunk_rows: rows scored at once; by default as many as keep a chunk in the cache.
    Returns:
        () the sum, differentiable once in `states` and `items`.
    """
    return _CrossEntropySum.of(states, items, targets, chunk_rows)
