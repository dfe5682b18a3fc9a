"""Settings of a backbone of gated means."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tessera.settings.backbones.base import BackboneSettings


class GatedMean(BackboneSettings):
    """The mean of the items so far, each weighted by a gate of its own."""

    IMPLEMENTATION: ClassVar[str] = "mine.gated:GatedMeanBackbone"
    max_length: int = Field(20, ge=1)
    """Longest history read at once."""
    floor: float = Field(0.01, gt=0, lt=1)
    """Least weight of an item."""
