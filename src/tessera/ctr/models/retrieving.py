"""The frame of two-stage models: retrieve k events for the target, then attend to them (SIM, ETA, TWIN)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tessera.ctr.attention import AGES, TargetAttention, age_buckets
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, ShortTerm, Tower, filled, length_mask
from tessera.ctr.retrieval import Selected
from tessera.settings.clicks import retrieval_base as click_settings


@dataclass
class Prepared:
    """What the candidates of a request share."""

    history: Tensor
    """(1, length) items, at least one place."""
    ages: Tensor
    valid: Tensor
    """(1, length) bool."""
    short: tuple[Tensor, Tensor]
    """Vectors of the last events, and which there are."""
    index: Any
    """What retrieval has made of the history."""
    projected: Tensor | None = None
    """(1, length, 2 dim) keys and values of all events, once some score has asked for them."""


class TwoStage(ClickModel):
    """Retrieval, attention over what it found, and attention over the last events.

    An event enters attention as its item's vector plus one for its age.
    """

    def __init__(self, settings: click_settings.Retrieval, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.k = settings.k
        width = self.items.width
        self.ages = nn.Embedding(AGES, width)
        nn.init.normal_(self.ages.weight, std=0.02)
        self.attention = TargetAttention(width, settings.attention_dim, settings.heads)
        self.short = ShortTerm(width, settings.short, settings.attention_hidden)
        self.tower = Tower(width, 1 + self.short.interests, settings.hidden, settings.dropout)

    @abstractmethod
    def retrieve(self, batch: Batch, histories: Tensor, valid: Tensor) -> Selected:
        """The events of each row."""

    @abstractmethod
    def index(self, history: Tensor, ages: Tensor, valid: Tensor) -> Any:
        """What retrieval can do without a target, of (length,) items and ages; valid where they hold an event."""

    @abstractmethod
    def search(self, index: Any, candidates: Tensor) -> Selected:
        """The events of each candidate; those of `retrieve`."""

    def tokens(self, items: Tensor, ages: Tensor) -> Tensor:
        """Events (...) as attention reads them (..., width)."""
        vectors: Tensor = self.items(items) + self.ages(age_buckets(ages))
        return vectors

    def logits(self, batch: Batch) -> Tensor:
        histories, ages = filled(batch.histories), filled(batch.ages)
        valid = length_mask(batch.lengths, histories.shape[1])
        with torch.no_grad():
            selected = self.retrieve(batch, histories, valid)
        projected = self.attention.project(self.tokens(selected.take(histories), selected.take(ages)))
        short = self.short.events(self.items, histories, batch.lengths)
        return self._logits(batch.items, projected, selected.valid, short)

    @torch.no_grad()
    def selected(self, batch: Batch) -> Tensor:
        """(batch, length) bool: the events that retrieval hands on."""
        histories = filled(batch.histories)
        selected = self.retrieve(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        return selected.mask(histories.shape[1])[:, : batch.histories.shape[1]]

    def prepare(self, history: Tensor, ages: Tensor) -> Prepared:
        lengths = torch.tensor([len(history)], device=history.device)
        history, ages = filled(history[None]), filled(ages[None])
        valid = length_mask(lengths, history.shape[1])
        short = self.short.events(self.items, history, lengths)
        return Prepared(history, ages, valid, short, self.index(history[0], ages[0], valid[0]))

    def score(self, prepared: Prepared, candidates: Tensor) -> Tensor:
        selected = self.search(prepared.index, candidates)
        if selected.positions.numel() < prepared.history.shape[1]:
            events = self.tokens(selected.take(prepared.history), selected.take(prepared.ages))
            projected = self.attention.project(events)
        else:  # so many candidates that each event is wanted more than once: project the history once, and gather
            if prepared.projected is None:
                prepared.projected = self.attention.project(self.tokens(prepared.history, prepared.ages))
            projected = selected.take(prepared.projected)
        return self._logits(candidates, projected, selected.valid, prepared.short)

    def cells(self, prepared: Prepared) -> int:
        return max(self.k * self.items.width, self.compared(prepared.index))

    def compared(self, index: Any) -> int:
        """Scores that retrieval makes for one candidate."""
        return 0

    def _logits(self, targets: Tensor, projected: Tensor, valid: Tensor, short: tuple[Tensor, Tensor]) -> Tensor:
        target = self.items(targets)
        interests = [self.attention(target, projected, valid), *self.short(target, *short)]
        logits: Tensor = self.tower(target, interests)
        return logits
