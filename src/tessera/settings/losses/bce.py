"""Binary cross-entropy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings


class BCE(Settings):
    """Binary cross-entropy with uniform negatives, as in SASRec."""

    kind: Literal["bce"] = "bce"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window."""
