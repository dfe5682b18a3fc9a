"""Settings of the causal filter beside attention."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import Width


class FilterSettings(BackboneSettings):
    """Self-attention beside a causal low-pass over the history, after BSARec (Shin et al., AAAI 2024)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.filter:Filter"

    kind: Literal["filter"] = "filter"
    dim: Width = 64
    """Width of item vectors and hidden states."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of blocks."""
    heads: int = Field(2, ge=1, le=2**16)
    """Attention heads a block; `dim` is a multiple of it."""
    inner_dim: Width = 256
    """Width of the feed-forward layer."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the outputs of the mixture and the feed-forward layer."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
    share: float = Field(0.7, ge=0, le=1)
    """How much of the mixture is the filter's, the rest attention's (BSARec's alpha); 0 is SASRec."""
    span: float = Field(16.0, ge=2)
    """Items over which the slowest channel of a filter averages at the start, the fastest over 2; all are learned."""
