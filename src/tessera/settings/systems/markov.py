"""Settings of the Markov chain."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings


class MarkovSettings(Settings):
    """First-order Markov chain over train transitions, backed off to popularity."""

    recommender: Literal["markov"] = "markov"
    smoothing: float = Field(5.0, ge=0)
    """Pseudo-count of the popularity prior in each row."""
