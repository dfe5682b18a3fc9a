"""Attention of a target over events: DIN's network without a softmax, and scaled dot products with heads.

Masks say which places hold an event; a row without any gives zeros. Events that all rows share are given once, as one
row, and what does not depend on the target is then computed once.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.ctr.shares import AcrossRows

AGES = 40
"""Buckets of ages: powers of two, up to more than 10,000 years in seconds."""


def age_buckets(ages: Tensor) -> Tensor:
    """(...) ages from 0 -> the whole part of log2(1 + age), int64."""
    return torch.log2(ages.double() + 1).floor().long().clamp(0, AGES - 1)


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the last dimension; zeros where nothing is valid."""
    weights = scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(-1)
    return weights * valid


class Dice(AcrossRows):
    """Dice (DIN, equation 3): a soft switch at the mean of each number, over the events that there are.

    s p + a s (1 - p) with p = sigmoid of the standardised s and a trained slope a. Means are those of the batch in
    training and moving averages after it.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """(rows, length, width) with (rows or 1, length) valid places."""
        mean, variance = self.mean, self.variance
        count = self.shares.total(valid.sum()) if self.training else valid.sum()
        if self.training and count > 1:  # a batch with a single event has no spread: use what was seen before
            weight = valid[..., None] / count
            mean = self.shares.sum((values * weight).sum((0, 1)))
            variance = self.shares.sum(((values - mean).square() * weight).sum((0, 1)))
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        switch = torch.sigmoid((values - mean) * torch.rsqrt(variance + 1e-8))
        return values * (switch + self.slope * (1 - switch))


class DINAttention(nn.Module):
    """The sum of events weighted by a network of [e; v; e - v; e * v], without a softmax (DIN, section 4.3).

    The first layer is split by its inputs, so that nothing four vectors wide is ever made: the part of the events is
    computed once for all targets that share them, the part of the target once for all events.
    """

    def __init__(self, width: int, hidden: list[int], activation: str = "dice") -> None:
        super().__init__()
        if not hidden:
            raise ValueError("DIN's attention needs a hidden layer: attention_hidden is empty")
        self.event = nn.Linear(width, hidden[0])
        self.target = nn.Linear(width, hidden[0], bias=False)
        self.product = nn.Linear(width, hidden[0], bias=False)
        sizes = [*hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.dice = nn.ModuleList(Dice(size) if activation == "dice" else nn.Identity() for size in hidden)

    def weights(self, target: Tensor, events: Tensor, valid: Tensor) -> Tensor:
        """(rows, length): the weight of each event."""
        # e - v adds nothing that layers of e and v cannot learn
        product = (events * target[:, None]) @ self.product.weight.T
        values = self.event(events) + self.target(target)[:, None] + product
        for layer, dice in zip(self.layers, self.dice, strict=True):
            values = layer(dice(values, valid) if isinstance(dice, Dice) else values.relu())
        weights: Tensor = values.squeeze(-1) * valid
        return weights

    def forward(self, target: Tensor, events: Tensor, valid: Tensor) -> Tensor:
        """(rows, width) of targets (rows, width) and events (rows or 1, length, width)."""
        weights = self.weights(target, events, valid)
        if len(events) == 1:
            return weights @ events[0]
        return (weights[:, None] @ events).squeeze(1)


def heads_apart(vectors: Tensor, heads: int) -> Tensor:
    """(..., dim) -> (..., heads, dim / heads)."""
    return vectors.reshape(*vectors.shape[:-1], heads, vectors.shape[-1] // heads)


class TargetAttention(nn.Module):
    """Attention with heads, the target being the query; keys and values can be computed once and gathered."""

    def __init__(self, width: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, dim)
        self.key = nn.Linear(width, dim)
        self.value = nn.Linear(width, dim)
        self.out = nn.Linear(dim, width)

    def project(self, events: Tensor) -> Tensor:
        """(..., width) -> (..., 2 dim) keys and values side by side."""
        return torch.cat([self.key(events), self.value(events)], -1)

    def forward(self, target: Tensor, projected: Tensor, valid: Tensor) -> Tensor:
        """(rows, width) of targets (rows, width), events (rows or 1, k, 2 dim) and valid places (rows or 1, k)."""
        keys, values = (heads_apart(part, self.heads) for part in projected.chunk(2, -1))
        query = heads_apart(self.query(target), self.heads) / math.sqrt(keys.shape[-1])
        if len(keys) == 1:
            weights = masked_softmax(torch.einsum("bhd,khd->bhk", query, keys[0]), valid[:, None])
            mixed = torch.einsum("bhk,khd->bhd", weights, values[0])
        else:
            weights = masked_softmax(torch.einsum("bhd,bkhd->bhk", query, keys), valid[:, None])
            mixed = torch.einsum("bhk,bkhd->bhd", weights, values)
        return F.linear(mixed.flatten(1), self.out.weight) + self.out.bias * valid.any(-1, keepdim=True)
