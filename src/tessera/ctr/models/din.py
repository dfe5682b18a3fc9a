"""Deep interest network (Zhou et al., KDD 2018, arXiv 1706.06978): target attention over the last events, or all."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.ctr.attention import DINAttention
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, Tower, filled, length_mask
from tessera.ctr.retrieval import latest
from tessera.settings.clicks.din import DINSettings


class Model(ClickModel):
    """DIN."""

    def __init__(self, settings: DINSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.window = settings.window
        """The last events that are attended to; None attends to all."""
        self.max_history = None if settings.counts else self.window  # counts are of whole histories
        self.din = DINAttention(self.items.width, settings.attention_hidden, settings.activation)
        self.tower = Tower(self.items.width, 1, settings.hidden, settings.dropout)

    def events(self, histories: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the events read, and which places hold one."""
        if self.window is None or self.window >= histories.shape[1]:
            histories = filled(histories)
            valid = length_mask(lengths, histories.shape[1])
        else:
            last = latest(lengths, self.window)
            histories, valid = last.take(histories), last.valid
        return self.items(histories) * valid[..., None], valid

    def logits(self, batch: Batch) -> Tensor:
        target = self.items(batch.items)
        events, valid = self.events(batch.histories, batch.lengths)
        logits: Tensor = self.tower(target, [self.din(target, events, valid)])
        return logits

    @torch.no_grad()
    def attention(self, batch: Batch) -> Tensor:
        """(batch, length) weights of the events, where all are read."""
        events, valid = self.events(batch.histories, batch.lengths)
        return self.din.weights(self.items(batch.items), events, valid)[:, : batch.histories.shape[1]]

    def prepare(self, history: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
        return self.events(history[None], torch.tensor([len(history)], device=history.device))

    def score(self, prepared: tuple[Tensor, Tensor], candidates: Tensor) -> Tensor:
        target = self.items(candidates)
        logits: Tensor = self.tower(target, [self.din(target, *prepared)])
        return logits

    def cells(self, prepared: tuple[Tensor, Tensor]) -> int:
        return prepared[0].numel()
