"""Self-attention beside a causal low-pass, in the spirit of BSARec (Shin et al., AAAI 2024).

BSARec keeps the lowest frequencies of a window's Fourier transform and rescales the rest by a learned weight. A
transform of the whole window mixes every position with those after it, so with a loss at all positions it would read
the targets. A sharp cut-off cannot be made causal; what can is a first-order low-pass, the exponential average: see
docs/systems/filter.md.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block
from tessera.recommenders.backbones.sasrec import AttentionStack
from tessera.settings.backbones.filter import FilterSettings

_CHUNK = 256
"""Positions that are averaged by one matrix a channel; from one chunk to the next a state is handed on."""


class LowPass(nn.Module):
    """Splits a history into its slow part and the rest, and rescales the rest, each channel in its own way.

    The slow part is the exponential average of the positions up to and with a position, the weights of the real ones
    summing to one: a constant history comes through unchanged, from the first item on.
    """

    def __init__(self, dim: int, span: float) -> None:
        """
        Args:
            dim: channels.
            span: items that the slowest channel averages over at the start; the others lie between 2 and it.
        """
        super().__init__()
        spans = torch.logspace(math.log2(2), math.log2(span), dim, 2)
        self.decay = nn.Parameter(torch.log(spans - 1))  # sigmoid gives 1 - 1 / span
        self.sharpness = nn.Parameter(torch.randn(dim))
        """Its square is the weight of the fast part, as in BSARec."""

    def slow(self, x: Tensor) -> Tensor:
        """(batch, length, dim) averages of x (batch, length, dim)."""
        # under autocast a power of a decay near one would lose what is far back
        with torch.autocast(x.device.type, enabled=False):
            log_decay = F.logsigmoid(self.decay)
            x = x.to(log_decay.dtype)
            # a graph that is exported has any length, which no loop can follow
            parts = [x] if torch.compiler.is_exporting() else torch.split(x, _CHUNK, dim=1)
            sums: list[Tensor] = []
            for part in parts:
                steps = torch.arange(part.shape[1], device=x.device)
                lags = steps[:, None] - steps
                taps = (log_decay[:, None, None] * lags.clamp(min=0)).exp() * (lags >= 0)
                total = torch.einsum("cts,bsc->btc", taps, part)
                if sums:
                    total = total + ((steps[:, None] + 1) * log_decay).exp() * sums[-1][:, -1:]
                sums.append(total)
            counts = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
            weights = torch.expm1(counts * log_decay) / torch.expm1(log_decay)  # 1 + decay + decay^2 + ...
            return torch.cat(sums, 1) / weights

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, dim) to the same; a position from itself and those before it."""
        slow = self.slow(x)
        return slow + self.sharpness.square() * (x - slow)


class FilterBlock(Block):
    """An attention block in which a low-pass stands beside attention."""

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__(settings.dim, settings.heads, settings.inner_dim, settings.dropout, causal=True)
        self.share = settings.share
        self.low_pass = LowPass(settings.dim, settings.span)

    def beside(self, normed: Tensor, attended: Tensor, positions: Tensor | None = None) -> Tensor:
        """See `Block.beside`: the mixture of the filter and attention."""
        filtered = self.low_pass(normed)
        if positions is not None:
            filtered = filtered[torch.arange(filtered.shape[0], device=filtered.device), positions]
        mixed: Tensor = self.share * filtered + (1 - self.share) * attended
        return mixed


class Filter(AttentionStack):
    """SASRec with a causal low-pass beside attention in every block."""

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__(
            settings.dim, settings.max_length, settings.dropout, settings.layers, partial(FilterBlock, settings)
        )
