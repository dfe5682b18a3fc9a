"""Settings of the Markov chain."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.systems.base import SystemSettings


class MarkovSettings(SystemSettings):
    """First-order Markov chain over train transitions, backed off to popularity."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.markov:Markov"
    recommender: Literal["markov"] = "markov"
    smoothing: float = Field(5.0, ge=0)
    """Pseudo-count of the popularity prior in each row."""
