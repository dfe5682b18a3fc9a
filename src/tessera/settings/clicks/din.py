"""Settings of DIN."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.base import Width
from tessera.settings.clicks.base import ClickModel


class DINSettings(ClickModel):
    """Deep interest network (Zhou et al., KDD 2018)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.din:Model"
    attends: ClassVar[bool] = True
    model: Literal["din"] = "din"
    window: int | None = Field(50, ge=1)
    """Last events read; null reads all."""
    attention_hidden: list[Width] = Field(default_factory=lambda: [32], min_length=1)
    """Hidden widths of the attention network."""
    activation: Literal["dice", "relu"] = "dice"
    """Inside the attention network."""
