"""What every system may say."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tessera.settings.base import Seed, Settings
from tessera.settings.kinds import KindOf


class NetworkSystem(Settings):
    """A recommender that is a network of its own: trained once a seed, under no backbone."""

    semantic_ids: str
    """Name under `semantic_ids`."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this system."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Only these seeds; null takes the experiment's."""


System = Annotated[SystemSettings, KindOf("systems")]
