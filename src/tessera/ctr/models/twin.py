"""TWIN, two-stage interest network (Chang et al., KDD 2023, arXiv 2302.02352): one score retrieves and weighs.

Attention of each head: (K_h W_h)(q W_q) / sqrt(d) + K_c b. What is inherent to an event (its item's vector) is
projected, a projection that can be kept; what crosses event and request (how old it is) is squeezed into one number.
Events are retrieved by the sum of these scores over the heads, and attended to with the same scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tessera.ctr.attention import AGES, age_buckets, heads_apart, masked_softmax
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, ShortTerm, Tower, filled, length_mask
from tessera.ctr.retrieval import Selected, best, ordered
from tessera.settings.clicks.twin import TWINSettings


@dataclass
class Prepared:
    """What the candidates of a request share."""

    keys: Tensor
    """(distinct items, dim) projected keys."""
    event: Tensor
    """(length,) which of them an event has."""
    bias: Tensor
    """(length, heads)."""
    history: Tensor
    """(1, length) items."""
    buckets: Tensor
    """(1, length) of the ages."""
    valid: Tensor
    """(1, length) bool."""
    short: tuple[Tensor, Tensor]


class Model(ClickModel):
    """TWIN, with attention over the last events beside it."""

    def __init__(self, settings: TWINSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.k, self.heads = settings.k, settings.heads
        width, dim = self.items.width, settings.attention_dim
        self.query = nn.Linear(width, dim, bias=False)
        self.key = nn.Linear(width, dim, bias=False)
        self.value = nn.Linear(width, dim)
        self.out = nn.Linear(dim, width)
        self.ages = nn.Embedding(AGES, width)
        self.bias = nn.Embedding(AGES, settings.heads)
        nn.init.normal_(self.ages.weight, std=0.02)
        nn.init.zeros_(self.bias.weight)
        self.short = ShortTerm(width, settings.short, settings.attention_hidden)
        self.tower = Tower(width, 1 + self.short.interests, settings.hidden, settings.dropout)

    def queries(self, target: Tensor) -> Tensor:
        """(rows, heads, dim / heads), scaled."""
        queries = heads_apart(self.query(target), self.heads)
        return queries / math.sqrt(queries.shape[-1])

    def keys(self, items: Tensor) -> Tensor:
        """Projected keys (..., dim) of items (...), without gradient."""
        return self.known("keys", lambda some: self.key(self.items(some)), items)

    def retrieve(self, batch: Batch, histories: Tensor, valid: Tensor) -> Selected:
        """The events of each row: the sum over heads needs no heads."""
        query = self.queries(self.items(batch.items)).flatten(1)
        scores = (self.keys(histories) @ query[..., None]).squeeze(-1)
        scores = scores + self.bias(age_buckets(filled(batch.ages))).sum(-1)
        return best(ordered(scores), self.k, valid)

    @torch.no_grad()
    def selected(self, batch: Batch) -> Tensor:
        """(batch, length) bool: the events that retrieval hands on."""
        histories = filled(batch.histories)
        selected = self.retrieve(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        return selected.mask(histories.shape[1])[:, : batch.histories.shape[1]]

    def logits(self, batch: Batch) -> Tensor:
        histories, ages = filled(batch.histories), filled(batch.ages)
        with torch.no_grad():
            selected = self.retrieve(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        vectors, buckets = self.items(selected.take(histories)), age_buckets(selected.take(ages))
        short = self.short.events(self.items, histories, batch.lengths)
        tokens = vectors + self.ages(buckets)
        return self._logits(batch.items, self.key(vectors), self.bias(buckets), tokens, selected.valid, short)

    def prepare(self, history: Tensor, ages: Tensor) -> Prepared:
        lengths = torch.tensor([len(history)], device=history.device)
        history, ages = filled(history[None]), filled(ages[None])
        items, event = torch.unique(history[0], return_inverse=True)
        buckets = age_buckets(ages)
        return Prepared(
            keys=self.keys(items),
            event=event,
            bias=self.bias(buckets)[0],
            history=history,
            buckets=buckets,
            valid=length_mask(lengths, history.shape[1]),
            short=self.short.events(self.items, history, lengths),
        )

    def score(self, prepared: Prepared, candidates: Tensor) -> Tensor:
        query = self.queries(self.items(candidates)).flatten(1)
        scores = (query @ prepared.keys.T)[:, prepared.event] + prepared.bias.sum(-1)
        selected = best(ordered(scores), self.k, prepared.valid)
        keys = prepared.keys[prepared.event[selected.positions]]
        bias = prepared.bias[selected.positions]
        tokens = self.items(selected.take(prepared.history)) + self.ages(selected.take(prepared.buckets))
        return self._logits(candidates, keys, bias, tokens, selected.valid, prepared.short)

    def cells(self, prepared: Prepared) -> int:
        return max(self.k * self.items.width, len(prepared.event))

    def _logits(
        self, targets: Tensor, keys: Tensor, bias: Tensor, tokens: Tensor, valid: Tensor, short: tuple[Tensor, Tensor]
    ) -> Tensor:
        target = self.items(targets)
        scores = torch.einsum("bhd,bkhd->bhk", self.queries(target), heads_apart(keys, self.heads))
        weights = masked_softmax(scores + bias.transpose(1, 2), valid[:, None])
        values = heads_apart(self.value(tokens), self.heads)
        interest = self.out(torch.einsum("bhk,bkhd->bhd", weights, values).flatten(1))
        logits: Tensor = self.tower(target, [interest * valid.any(-1, keepdim=True), *self.short(target, *short)])
        return logits
