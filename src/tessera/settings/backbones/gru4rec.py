"""Settings of GRU4Rec."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import PresetSettings, Width


class GRU4RecSettings(PresetSettings, BackboneSettings):
    """Recurrent recommendation (Hidasi et al., ICLR 2016), with the loss chosen freely."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.gru4rec:GRU4Rec"
    OFFICIAL: ClassVar[dict[str, Any]] = {"targets": "last"}
    FREE: ClassVar[frozenset[str]] = BackboneSettings.FREE | {"targets"}

    kind: Literal["gru4rec"] = "gru4rec"
    dim: Width = 64
    """Width of item vectors; the state is projected back to it."""
    hidden_dim: Width = 128
    """Width of the recurrent state."""
    layers: int = Field(1, ge=1, le=1000)
    """Number of recurrent layers."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on embeddings and on the output state."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once."""
    targets: Literal["all", "last"] = "all"
    """Predict every item of a training window, or the last alone, as LLMEmb's and ReaEmb's code."""
