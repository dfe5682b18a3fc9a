"""What a loss that ranks a target among items is, and what those on negatives share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class CatalogueLoss(Protocol):
    """Loss of states against the catalogue."""

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """Sum of the loss over targets.

        Args:
            states: (targets, dim) hidden states.
            vectors: (items + 1, dim) item vectors, row 0 the padding.
            targets: (targets,) item ids.
            owners: (targets,) row of `histories` that each target belongs to.
            histories: (batch, length) item ids, 0 where there is none.
        """


def uniform(shape: tuple[int, ...], items: int, device: torch.device) -> Tensor:
    """Item ids of a shape, drawn uniformly."""
    return torch.randint(1, items + 1, shape, device=device)


def scores(states: Tensor, vectors: Tensor, ids: Tensor) -> Tensor:
    """(targets, n) scores of `ids` (targets, n)."""
    return torch.einsum("td,tnd->tn", states, vectors[ids])
