"""What every backbone may say."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.kinds import KindOf


class BackboneSettings(Settings):
    """What every backbone may say besides its own shape."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this backbone."""


Backbone = Annotated[BackboneSettings, KindOf("backbones")]
