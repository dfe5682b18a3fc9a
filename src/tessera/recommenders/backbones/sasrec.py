"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

Pre-norm blocks and GELU in place of the paper's post-dropout norms and ReLU: they train more steadily at the same
size. Every position predicts the next item (paper, section III-E); the loss is chosen outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block, initialise
from tessera.recommenders.backbones.base import CausalBackbone
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.sasrec import SASRecSettings


class AttentionStack(CausalBackbone):
    """Blocks of causal attention over the items of a history, one after the other."""

    def __init__(self, dim: int, max_length: int, dropout: float, layers: int, block: Callable[[], Block]) -> None:
        """
        Args:
            dim: width of item vectors and hidden states.
            max_length: longest history read at once.
            dropout: on the inputs.
            layers: number of blocks.
            block: makes one.
        """
        super().__init__()
        self.dim = dim
        self.max_length = max_length
        self.positions = nn.Embedding(max_length, dim)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(block() for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        initialise(self, std=0.02)

    def _start(self, inputs: Tensor) -> Tensor:
        """Item vectors, scaled so that they are not drowned by the positions, plus position vectors."""
        x: Tensor = self.dropout(inputs * self.dim**0.5 + self.positions.weight[: inputs.shape[1]])
        return x

    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states. Padding is on the right, so the causal mask alone hides it."""
        x = self._start(inputs)
        mask = None if self.causal else _visible(inputs, lengths)
        for block in self.blocks:
            x = block(x, mask)
        normed: Tensor = self.norm(x)
        return normed

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state after the last item; the last block computes that position alone."""
        x = self._start(self.fused(F.embedding(histories, vectors), histories > 0))
        visible = _visible(x, lengths)
        for block in self.blocks[:-1]:
            x = block(x, None if self.causal else visible)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        state: Tensor = self.norm(last.last(x, lengths - 1, visible))
        return state


class SASRec(AttentionStack):
    """Causal self-attention over the items of a history (or, with `causal: false`, over all of them)."""

    def __init__(self, settings: SASRecSettings) -> None:
        shape = settings.dim, settings.heads, settings.inner_dim, settings.dropout, settings.causal
        super().__init__(settings.dim, settings.max_length, settings.dropout, settings.layers, partial(Block, *shape))
        self.causal = settings.causal


def _visible(x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, 1, 1, length) bool: which positions of x (batch, length, dim) hold an item."""
    return (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[:, None, None]
