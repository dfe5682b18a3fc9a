"""Two views that read each other by cross-attention: within an item, or along a history (LLM-ESR's block).

LLM-ESR attends without a residual and without a causal mask. Here each view keeps what it was (the residual), and along
a history a position sees none after it, unless the backbone itself looks both ways: otherwise it would see its target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.training.attend import attend


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another; no biases but the output's, as in LLM-ESR."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_query = nn.Linear(width, width, bias=False)
        self.project_keys = nn.Linear(width, 2 * width, bias=False)
        self.project_out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
        """(batch, queries, width) what the queries found among the keys.

        Args:
            queries: (batch, queries, width).
            keys: (batch, keys, width).
            visible: broadcast to (batch, queries, keys): true where a query may look; each sees one key at least.
        """
        attended: Tensor = self.project_out(self.attend(self.project_query(queries), self.project_keys(keys), visible))
        return attended

    def attend(self, queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
        """(batch, queries, width) before the output layer, of projected queries and keys (batch, keys, 2 width).

        The output layer is linear: who needs the mean over queries takes it before, and projects one vector.
        """
        key, value = (x.contiguous() for x in keys.chunk(2, dim=2))
        mask = None if visible is None else visible[:, None]
        seen = attend(self._split(queries), self._split(key), self._split(value), mask)
        return seen.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        """(batch, length, width) to (batch, heads, length, width of a head)."""
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def masked_mean(x: Tensor, present: Tensor) -> Tensor:
    """(batch, width) mean over the present (batch, length) of x (batch, length, width); each row has one at least."""
    weights = present.to(x.dtype)
    return torch.einsum("bnd,bn->bd", x, weights) / weights.sum(1, keepdim=True)


class SequenceFusion(nn.Module):
    """The halves of item vectors read each other along a history (LLM-ESR, its dual view)."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        """
        Args:
            dim: width of item vectors, both halves.
            heads: of the attention in each direction; it divides half of `dim`.
            causal: a position sees itself and those before it; false for backbones that look both ways.
        """
        super().__init__()
        self.causal = causal
        self.coarse = CrossAttention(dim // 2, heads)
        self.fine = CrossAttention(dim // 2, heads)

    def forward(self, inputs: Tensor, real: Tensor) -> Tensor:
        """(batch, length, dim) inputs (batch, length, dim) after the exchange; real (batch, length) hides padding."""
        coarse, fine = inputs.chunk(2, dim=2)
        visible = real[:, None].expand(-1, inputs.shape[1], -1)
        if self.causal:
            visible = visible & torch.ones(2 * inputs.shape[1:2], dtype=torch.bool, device=inputs.device).tril()
        return torch.cat([coarse + self.coarse(coarse, fine, visible), fine + self.fine(fine, coarse, visible)], dim=2)
