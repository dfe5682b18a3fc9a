"""The mean of the whole history: what an interest model without attention knows."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, Tower, length_mask
from tessera.settings.clicks.avg import AverageSettings


class Model(ClickModel):
    """Average pooling."""

    def __init__(self, settings: AverageSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.tower = Tower(self.items.width, 1, settings.hidden, settings.dropout)

    def logits(self, batch: Batch) -> Tensor:
        events = self.items(batch.histories) * length_mask(batch.lengths, batch.histories.shape[1])[..., None]
        logits: Tensor = self.tower(self.items(batch.items), [events.sum(1) / batch.lengths.clamp(min=1)[:, None]])
        return logits

    def prepare(self, history: Tensor, ages: Tensor) -> Tensor:
        items, counts = torch.unique(history, return_counts=True)
        summed: Tensor = (self.items(items) * counts[:, None]).sum(0)
        return summed / max(1, len(history))

    def score(self, prepared: Tensor, candidates: Tensor) -> Tensor:
        logits: Tensor = self.tower(self.items(candidates), [prepared.expand(len(candidates), -1)])
        return logits

    def cells(self, prepared: Tensor) -> int:
        return self.items.width
