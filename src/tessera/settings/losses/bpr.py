"""Bayesian personalised ranking."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.losses.base import LossSettings


class BPR(LossSettings):
    """Bayesian personalised ranking (Rendle et al., UAI 2009)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.objectives.losses.bpr:BPRLoss"
    kind: Literal["bpr"] = "bpr"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window or prefix; their losses are averaged."""
