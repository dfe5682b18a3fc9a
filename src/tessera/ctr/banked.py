"""Long sequences of items whose vectors stand once in a table: a decoder over them, and how alike they are to a target.

Events point at rows of the table. Keys, values and cosines are made once a row, and scores of events gathered: a
history of a thousand events of a few hundred items costs what the items cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.ctr.attention import AGES, age_buckets, heads_apart, masked_softmax


@dataclass(frozen=True)
class Events:
    """Events of histories, the latest first."""

    at: Tensor
    """(rows or 1, events) int64 rows of the table."""
    ages: Tensor
    """(rows or 1, events) int64 buckets of ages."""
    valid: Tensor
    """(rows or 1, events) bool: whether there is one."""

    @classmethod
    def latest(cls, at: Tensor, ages: Tensor, lengths: Tensor, size: int) -> Events:
        """The last `size` events of padded histories (rows, length), at most as many as the longest has."""
        columns = torch.arange(min(size, at.shape[1]), device=at.device)
        positions = lengths[:, None] - 1 - columns
        valid = positions >= 0
        positions = positions.clamp(min=0)
        return cls(at.gather(1, positions), age_buckets(ages.gather(1, positions)), valid)


class Decoder(nn.Module):
    """Layers of attention of one query over events, none among the events (after LONGER, arXiv 2505.04421)."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ages = nn.Embedding(AGES, width)
        nn.init.normal_(self.ages.weight, std=0.02)
        self.queries, self.keys, self.values, self.outs = (
            nn.ModuleList(nn.Linear(width, width, bias=name != "keys") for _ in range(layers))
            for name in ("queries", "keys", "values", "outs")
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(layers)
        )

    def forward(self, query: Tensor, table: Tensor, events: Events) -> Tensor:
        """(rows, width) of queries (rows, width), the table (n, width) and the events of each row, or of all rows."""
        rows = len(query)
        shape = (rows, self.heads, events.at.shape[1])
        at, ages = (part[:, None].expand(shape) for part in (events.at, events.ages))
        for number, norm in enumerate(self.norms):
            asked = heads_apart(self.queries[number](query), self.heads) / math.sqrt(query.shape[1] / self.heads)
            scores, values = [], []
            for source, index in ((table, at), (self.ages.weight, ages)):
                keys = heads_apart(self.keys[number](source), self.heads)
                scores.append(torch.einsum("rhd,nhd->rhn", asked, keys).gather(2, index))
                values.append(heads_apart(self.values[number](source), self.heads))
            weights = masked_softmax(scores[0] + scores[1], events.valid[:, None])
            mixed = query.new_zeros(rows, self.heads, query.shape[1] // self.heads)
            for value, index in zip(values, (at, ages), strict=True):
                summed = weights.new_zeros(rows, self.heads, len(value)).scatter_add(2, index, weights)
                mixed = mixed + torch.einsum("rhn,nhd->rhd", summed, value)
            # a row without events adds nothing: its query goes on
            read = self.outs[number](mixed.flatten(1)) * events.valid.any(1, keepdim=True)
            query = query + self.networks[number](norm(read)) * events.valid.any(1, keepdim=True)
        return query


def similarities(targets: Tensor, table: Tensor, known: Tensor, events: Events, size: int) -> tuple[Tensor, Tensor]:
    """Cosines (rows, size) of targets (rows, width) and events, by time, the latest first, and sorted, falling.

    Places without an event, and events of rows that are not `known` (n,), are 0; sorted they stand last.
    """
    cosines = F.normalize(targets, dim=1) @ F.normalize(table, dim=1).T
    at = events.at.expand(len(targets), -1)
    there = (events.valid & known[events.at]).expand(len(targets), -1)
    by_time = cosines.gather(1, at) * there
    ranked = by_time.masked_fill(~there, -2.0).sort(1, descending=True).values
    ranked = torch.where(ranked < -1.5, 0.0, ranked)
    missing = size - by_time.shape[1]
    return F.pad(by_time, (0, missing)), F.pad(ranked, (0, missing))
