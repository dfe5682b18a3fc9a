"""What BCE and BPR share: uniform negatives outside of the history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from tessera.objectives.losses.base import scores, uniform


class Pairwise(ABC):
    """Against uniform negatives that are not in the history (redrawn a few times, then left out)."""

    def __init__(self, settings: Any, popularity: Tensor) -> None:
        self.settings = settings
        self.items = len(popularity) - 1

    def _draw(self, owners: Tensor, histories: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.zeros(len(histories), self.items + 1, dtype=torch.bool, device=histories.device)
        seen.scatter_(1, histories, True)
        ids = uniform((len(owners), self.settings.negatives), self.items, histories.device)
        for _ in range(5):
            taken = seen[owners[:, None], ids]
            ids = torch.where(taken, uniform(tuple(ids.shape), self.items, ids.device), ids)
        return ids, seen[owners[:, None], ids]

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        ids, collision = self._draw(owners, histories)
        positive = (states * vectors[targets]).sum(1)
        return self.compare(positive, scores(states, vectors, ids), collision)

    @abstractmethod
    def compare(self, positive: Tensor, negative: Tensor, collision: Tensor) -> Tensor:
        """The sum over targets; positive (targets,), negative and collision (targets, negatives)."""
