"""HSTU: pointwise attention over a history, gated (Zhai et al., ICML 2024, arXiv 2402.17152).

A unit has no softmax and no feed-forward layer: what a position takes from another is the SiLU of their product, of
how far apart they stand and of how long ago the other was, so much of a taste counts and not its share alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import initialise
from tessera.recommenders.backbones.base import CausalBackbone
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.hstu import HSTUSettings

_BUCKETS = 128
_BUCKET_WIDTH = 0.301
"""Of the natural logarithm of seconds, as in the published code."""


def time_buckets(times: Tensor) -> Tensor:
    """(batch, length, length) number of what lies between two items: 0 where nobody knows, 1 within a second.

    Args:
        times: (batch, length) seconds, NaN where none is known.
    """
    between = (times[:, :, None] - times[:, None]).abs()
    logs = between.nan_to_num(0.0).clamp(min=1.0).log() / _BUCKET_WIDTH
    return torch.where(between.isnan(), 0, 1 + logs.long().clamp(max=_BUCKETS - 1))


class Unit(nn.Module):
    """Pointwise attention, its layer norm, a gate and a residual (paper, section 3.2, equations 1 to 3)."""

    def __init__(self, settings: HSTUSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.heads = settings.heads
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.project_in = nn.Linear(dim, 4 * dim)
        self.distances = nn.Parameter(torch.randn(settings.max_length) * 0.02)
        """Of an item so many positions back, added to the products."""
        self.ages = nn.Parameter(torch.randn(_BUCKETS + 1) * 0.02) if settings.times else None
        """Of an item so long before; the first is of an unknown time, and always 0."""
        self.read_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(settings.dropout)
        self.project_out = nn.Linear(dim, dim)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def bias(self, length: int, buckets: Tensor | None) -> Tensor:
        """(batch or 1, 1, length, length) what is added to the products of positions and those before them."""
        steps = torch.arange(length, device=self.distances.device)
        bias = self.distances[(steps[:, None] - steps).clamp(min=0)][None]
        if buckets is not None and self.ages is not None:
            known = F.pad(self.ages[1:], (1, 0))
            bias = bias + known.index_select(0, buckets.flatten()).view(buckets.shape)
        return bias[:, None]

    def forward(self, x: Tensor, buckets: Tensor | None) -> Tensor:
        """(batch, length, dim) to the same.

        Args:
            x: inputs.
            buckets: (batch, length, length) as `time_buckets` gives them; None where no time is known.
        """
        gate, value, query, key = F.silu(self.project_in(self.norm(x))).chunk(4, dim=2)
        length = x.shape[1]
        products = self._heads(query) @ self._heads(key).transpose(2, 3) + self.bias(length, buckets)
        steps = torch.arange(length, device=x.device)
        causal = steps[:, None] >= steps
        weights = F.silu(products) * causal / (steps[:, None] + 1)
        read = (weights @ self._heads(value)).transpose(1, 2).flatten(2)
        y: Tensor = x + self.project_out(self.dropout(gate * self.read_norm(read)))
        return y


class HSTU(CausalBackbone):
    """Units one after the other, over item and position vectors."""

    def __init__(self, settings: HSTUSettings) -> None:
        super().__init__()
        self.dim = settings.dim
        self.max_length = settings.max_length
        self.reads_times = settings.times
        self.positions = nn.Embedding(settings.max_length, settings.dim)
        self.dropout = Dropout(settings.dropout)
        self.units = nn.ModuleList(Unit(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dim)
        initialise(self, std=0.02)

    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states by positions alone. Padding is on the right, where no real position looks."""
        return self.timed(inputs, lengths, None)

    def timed(self, inputs: Tensor, lengths: Tensor, times: Tensor | None) -> Tensor:
        """See `CausalBackbone.timed`."""
        buckets = None if times is None else time_buckets(times)
        x = self.dropout(inputs * self.dim**0.5 + self.positions.weight[: inputs.shape[1]])
        for unit in self.units:
            x = unit(x, buckets)
        normed: Tensor = self.norm(x)
        return normed
