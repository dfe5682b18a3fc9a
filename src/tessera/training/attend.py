"""Fused attention of many rows: a part of them at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 32768
"""Rows attended at once: a dimension of CUDA's grids holds 65,535, and not all kernels divide more among several."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """(batch, heads, queries, width) what queries found, by scaled dot products.

    Args:
        query: (batch, heads, queries, width).
        key: (batch, heads, keys, width).
        value: (batch, heads, keys, width).
        mask: broadcast to (batch, heads, queries, keys), of four dimensions: true where there is something to see, or
            numbers that are added to the logits.
        causal: a query sees the keys up to its own place.
        scale: of the logits; None for one over the root of the width.
        dropout: share of the weights that are dropped; 0 where nothing is trained.
    """
    if query.shape[0] <= ROWS:
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal, scale=scale)
    blocks = []
    for start in range(0, len(query), ROWS):
        rows = slice(start, start + ROWS)
        shown = mask if mask is None or len(mask) == 1 else mask[rows]
        part = query[rows], key[rows], value[rows]
        blocks.append(F.scaled_dot_product_attention(*part, shown, dropout, causal, scale=scale))
    return torch.cat(blocks)
