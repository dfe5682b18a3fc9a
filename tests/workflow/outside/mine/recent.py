"""A click model of recent events."""

from __future__ import annotations

from mine.recent_settings import RecentClicks
from torch import Tensor

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, Tower
from tessera.ctr.retrieval import latest


class Model(ClickModel):
    """One interest: the mean of what came last."""

    def __init__(self, settings: RecentClicks, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.max_history = settings.window
        self.tower = Tower(self.items.width, 1, settings.hidden, settings.dropout)

    def logits(self, batch: Batch) -> Tensor:
        last = latest(batch.lengths, self.max_history)
        events = self.items(last.take(batch.histories)) * last.valid[..., None]
        interest = events.sum(1) / last.valid.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.tower(self.items(batch.items), [interest])
        return logits

    def prepare(self, history: Tensor, ages: Tensor) -> Tensor:
        last = history[-self.max_history :]
        interest: Tensor = self.items(last).sum(0) / max(1, len(last))
        return interest

    def score(self, prepared: Tensor, candidates: Tensor) -> Tensor:
        logits: Tensor = self.tower(self.items(candidates), [prepared.expand(len(candidates), -1)])
        return logits

    def cells(self, prepared: Tensor) -> int:
        return self.items.width
