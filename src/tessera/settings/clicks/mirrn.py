"""Settings of MIRRN."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings
from tessera.settings.clicks.retrieval_base import Hashed


class MIRRNSettings(PresetSettings, Hashed):
    """Multi-granularity interest retrieval and refinement network (Xu et al., KDD 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.mirrn:Model"
    OFFICIAL: ClassVar[dict[str, Any]] = {"filter": "diagonal", "mask": False}
    model: Literal["mirrn"] = "mirrn"
    k: int = Field(16, ge=1)
    """Events retrieved by each of the three queries: target, recent events, all events."""
    recent: int = Field(16, ge=1)
    """Last events that make the recent query."""
    filter: Literal["matrix", "diagonal"] = "matrix"
    """What a block of the Fourier filter multiplies with: its matrix, or the matrix's diagonal, as in the code."""
    mask: bool = True
    """Leave padding out of filter and attention; the code does not."""

    @model_validator(mode="after")
    def _blocks_divide(self) -> MIRRNSettings:
        width = self.dim + self.category_dim
        if not self.read_codes and width % self.heads:  # with codes, the codebooks have their say in the width
            raise ValueError(
                f"heads {self.heads} do not divide the width {width} of item vectors (dim {self.dim}, category_dim "
                f"{self.category_dim}), of which the Fourier filter makes a block each"
            )
        return self
