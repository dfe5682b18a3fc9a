"""Settings of SDIM."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.clicks.retrieval_base import ShortTerm


class SDIMSettings(ShortTerm):
    """Sampling-based deep interest model (Cao et al., CIKM 2022): events whose hash collides with the target's."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.sdim:Model"
    model: Literal["sdim"] = "sdim"
    bits: int = Field(48, ge=1)
    """Hash functions."""
    group: int = Field(3, ge=1, le=16)
    """Functions that have to agree."""

    @model_validator(mode="after")
    def _groups_divide(self) -> SDIMSettings:
        if self.bits % self.group:
            raise ValueError(f"bits {self.bits} is not a multiple of group {self.group}")
        return self
