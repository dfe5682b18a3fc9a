"""Settings of low-rank adapters."""

from __future__ import annotations

from pydantic import Field

from tessera.settings.base import Settings


class LoRA(Settings):
    """Low-rank adapters on every projection of attention and feed-forward layers (Hu et al., ICLR 2022)."""

    rank: int = Field(8, ge=1)
    """Rank of the update."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout before the down projection."""
