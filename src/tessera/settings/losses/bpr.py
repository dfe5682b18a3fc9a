"""Bayesian personalised ranking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings


class BPR(Settings):
    """Bayesian personalised ranking (Rendle et al., UAI 2009)."""

    kind: Literal["bpr"] = "bpr"
    negatives: int = Field(1, ge=1)
    """Uniform negatives a target, never items of the same training window."""
