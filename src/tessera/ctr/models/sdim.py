"""SDIM, sampling-based deep interest (Cao et al., CIKM 2022, arXiv 2205.10249): events that share a hash bucket.

In every group of hash functions the events that collide with the target are summed and scaled to length one; the mean
over groups is the interest. It behaves like attention with the weight (1 - angle / pi) ** group. The sums of the
buckets know no target: a request makes them once, and a candidate then costs one look-up a group, exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ClickModel, ShortTerm, Tower, filled, length_mask
from tessera.ctr.simhash import GroupedHash
from tessera.settings.clicks.sdim import SDIMSettings


class Model(ClickModel):
    """SDIM, with attention over the last events beside it."""

    def __init__(self, settings: SDIMSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        width = self.items.width
        self.hash = GroupedHash(width, settings.bits, settings.group)
        self.short = ShortTerm(width, settings.short, settings.attention_hidden)
        self.tower = Tower(width, 1 + self.short.interests, settings.hidden, settings.dropout)

    def hashed(self, items: Tensor) -> Tensor:
        """Bucket numbers (..., groups) of items (...)."""
        return self.known("buckets", lambda some: self.hash(self.items(some)), items)

    def logits(self, batch: Batch) -> Tensor:
        histories = filled(batch.histories)
        target = self.items(batch.items)
        events = self.items(histories)
        collide = self.hashed(histories) == self.hashed(batch.items)[:, None]
        collide = collide & length_mask(batch.lengths, histories.shape[1])[..., None]
        sums = collide.transpose(1, 2).to(events.dtype) @ events  # (rows, groups, width)
        return self._logits(target, sums, self.short.events(self.items, histories, batch.lengths))

    def prepare(self, history: Tensor, ages: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        lengths = torch.tensor([len(history)], device=history.device)
        items, counts = torch.unique(history, return_counts=True)
        vectors = self.items(items)
        buckets = self.hashed(items)  # (items, groups)
        offset = torch.arange(self.hash.groups, device=history.device) * self.hash.buckets
        sums = vectors.new_zeros(self.hash.groups * self.hash.buckets, vectors.shape[1])
        weighted = (vectors * counts[:, None])[:, None].expand(-1, self.hash.groups, -1)
        sums.index_add_(0, (buckets + offset).flatten(), weighted.flatten(0, 1))
        tables = sums.unflatten(0, (self.hash.groups, self.hash.buckets))
        return tables, self.short.events(self.items, filled(history[None]), lengths)

    def score(self, prepared: tuple[Tensor, tuple[Tensor, Tensor]], candidates: Tensor) -> Tensor:
        tables, short = prepared
        target = self.items(candidates)
        group = torch.arange(self.hash.groups, device=candidates.device)
        return self._logits(target, tables[group, self.hashed(candidates)], short)

    def _logits(self, target: Tensor, sums: Tensor, short: tuple[Tensor, Tensor]) -> Tensor:
        interest = F.normalize(sums, dim=-1).mean(1)
        logits: Tensor = self.tower(target, [interest, *self.short(target, *short)])
        return logits

    def cells(self, prepared: tuple[Tensor, tuple[Tensor, Tensor]]) -> int:
        return self.hash.groups * self.items.width
