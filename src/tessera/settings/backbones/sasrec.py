"""Settings of SASRec."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import PresetSettings, Width


class SASRecSettings(PresetSettings, BackboneSettings):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), pre-norm blocks."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.sasrec:SASRec"
    OFFICIAL: ClassVar[dict[str, Any]] = {"causal": False}

    kind: Literal["sasrec"] = "sasrec"
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
    causal: bool = True
    """A position sees those before it; false lets it see its own target in training, as LLMEmb's and ReaEmb's code."""

    @property
    def causal_states(self) -> bool:
        """As its attention is."""
        return self.causal
