"""Settings of MIRRN."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

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
