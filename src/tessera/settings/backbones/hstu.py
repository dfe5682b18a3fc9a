"""Settings of HSTU."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import Width


class HSTUSettings(BackboneSettings):
    """Hierarchical sequential transduction units (Zhai et al., ICML 2024): pointwise attention, gated."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.hstu:HSTU"

    kind: Literal["hstu"] = "hstu"
    dim: Width = 64
    """Width of item vectors and hidden states; queries, keys, values and gates of all heads have it together."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of units."""
    heads: int = Field(2, ge=1, le=2**16)
    """Attention heads a unit; `dim` is a multiple of it."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on inputs and on what each unit gated."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
    times: bool = True
    """Let attention read how long ago an item was; where a history has no times, positions alone are read."""
