"""Binary cross-entropy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.losses.base import LossSettings


class BCE(LossSettings):
    """Binary cross-entropy with uniform negatives, as in SASRec."""

    IMPLEMENTATION: ClassVar[str] = "tessera.objectives.losses.bce:BCELoss"
    kind: Literal["bce"] = "bce"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window or prefix; their losses are added."""
