"""What BCE and BPR share: uniform negatives outside of the history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from tessera.objectives.losses.base import scores, uniform


class Pairwise(ABC):
    """Against uniform negatives: neither the target nor in the history (redrawn a few times, then left out)."""

    def __init__(self, settings: Any, popularity: Tensor) -> None:
        self.settings = settings
        self.items = len(popularity) - 1

    def _draw(self, targets: Tensor, owners: Tensor, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Negatives (targets, negatives), and which of them are none."""
        rows = torch.arange(len(histories), device=histories.device)[:, None] * (self.items + 1)
        seen = torch.unique(rows + histories)  # sorted; a matrix of histories x items would grow with the catalogue
        ids = uniform((len(owners), self.settings.negatives), self.items, histories.device)
        for _ in range(5):
            taken = self._taken(ids, targets, owners, seen)
            ids = torch.where(taken, uniform(tuple(ids.shape), self.items, ids.device), ids)
        return ids, self._taken(ids, targets, owners, seen)

    def _taken(self, ids: Tensor, targets: Tensor, owners: Tensor, seen: Tensor) -> Tensor:
        """Whether items are the target or of the history. A prefix does not hold its target, a window does."""
        wanted = owners[:, None] * (self.items + 1) + ids
        at = torch.searchsorted(seen, wanted).clamp_(max=len(seen) - 1)
        return (seen[at] == wanted) | (ids == targets[:, None])

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        ids, collision = self._draw(targets, owners, histories)
        positive = (states * vectors[targets]).sum(1)
        return self.compare(positive, scores(states, vectors, ids), collision)

    @abstractmethod
    def compare(self, positive: Tensor, negative: Tensor, collision: Tensor) -> Tensor:
        """The sum over targets; positive (targets,), negative and collision (targets, negatives)."""
