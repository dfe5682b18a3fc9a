"""How items enter a backbone."""

from __future__ import annotations

from typing import Annotated

from tessera.settings.kinds import Kind, KindOf


class ItemSettings(Kind):
    """How items enter a backbone."""

    kind: str
    """Which kind it is."""


ItemEncoder = Annotated[ItemSettings, KindOf("items")]
