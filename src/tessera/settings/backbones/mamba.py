"""Settings of Mamba."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.base import Width


class MambaSettings(BackboneSettings):
    """Selective state space (Gu and Dao, 2023; over histories: Mamba4Rec, Liu et al., 2024)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.backbones.mamba:Mamba"

    kind: Literal["mamba"] = "mamba"
    dim: Width = 64
    """Width of item vectors and hidden states."""
    layers: int = Field(2, ge=1, le=1000)
    """Number of selective layers."""
    state_dim: int = Field(16, ge=1, le=2**12)
    """Numbers of state that each channel carries along the history."""
    expand: int = Field(2, ge=1, le=64)
    """Channels of a layer relative to `dim`."""
    convolution: int = Field(4, ge=1, le=64)
    """Items that the short convolution before the state sees, the item itself among them."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout on item vectors and on what each layer adds."""
    max_length: int = Field(50, ge=1)
    """Longest history read at once; longer ones are trained in windows and scored on their end."""
