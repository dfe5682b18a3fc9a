"""What backbones of attention blocks say of their shape."""

from __future__ import annotations

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import Width


class AttentionBlocks(BackboneSettings):
    """Blocks of self-attention and a feed-forward layer, read from one end of a history."""

    dim: Width = 64
    """Width of item vectors and hidden states."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of attention blocks."""
    heads: int = Field(2, ge=1, le=2**16)
    """Attention heads a block; `dim` is a multiple of it."""
    inner_dim: Width = 256
    """Width of the feed-forward layer."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the outputs of attention and feed-forward layers."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
