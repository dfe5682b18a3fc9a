"""Cross-entropy over the whole catalogue where a target has several vectors, of which the best counts for an item.

As `cross_entropy`: a chunk of rows is scored, turned into probabilities and multiplied back into both gradients while
it is in the cache. Autograd's form keeps K scores an item, or makes them twice.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from tessera.objectives.cross_entropy import WithGradients, sum_of_losses


class _BestOfSeveral(WithGradients):
    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, items: Tensor, targets: Tensor, rows: int) -> Tensor:
        count, width = states.shape[:2]
        full = torch.promote_types(states.dtype, torch.float32)
        grad_states = torch.empty_like(states)
        grad_items = torch.zeros_like(items, dtype=full)
        hits = states.new_empty((count, 1), dtype=full)
        room = states.new_empty(min(rows, count) * width, len(items))
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            target, own = targets[part, None], states[part].flatten(0, 1)
            scores = torch.mm(own, items.T, out=room[: len(own)]).view(-1, width, len(items))
            best = scores.amax(1)
            chosen = scores.eq_(best[:, None])  # 1 where a vector is the best, else 0
            probabilities = torch.softmax(best, dim=1, dtype=full)
            hits[part] = probabilities.gather(1, target)
            probabilities.scatter_add_(1, target, torch.full_like(hits[part], -1.0))
            shares = probabilities / chosen.sum(1)  # vectors that are alike share the gradient
            errors = chosen.mul_(shares.to(states.dtype)[:, None]).flatten(0, 1)
            torch.mm(errors, items, out=grad_states[part].flatten(0, 1))
            if full == states.dtype:
                grad_items.addmm_(errors.T, own)
            else:
                grad_items += errors.T @ own
        total = sum_of_losses(hits, targets, rows, lambda part: (states[part] @ items.T).amax(1))
        ctx.save_for_backward(grad_states, grad_items)
        return total.to(full)


def best_of_several(states: Tensor, items: Tensor, targets: Tensor, chunk_rows: int | None = None) -> Tensor:
    """Sum over targets of -log softmax(max over k of states[:, k] @ items.T)[target].

    Args:
        states: (targets, K, dim) vectors of a user at a target.
        items: (items, dim) vectors of the whole catalogue.
        targets: (targets,) row numbers into `items`.
        chunk_rows: targets scored at once; by default as many as keep a chunk in the cache.
    Returns:
        () the sum, differentiable once in `states` and `items`.
    """
    return _BestOfSeveral.of(states.contiguous(), items, targets, chunk_rows, width=states.shape[1])
