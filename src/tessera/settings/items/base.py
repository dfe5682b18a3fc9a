"""How items enter a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from tessera.settings.kinds import Kind, KindOf

if TYPE_CHECKING:
    from tessera.settings.backbones.base import BackboneSettings
    from tessera.settings.config import Config


class ItemSettings(Kind):
    """How items enter a backbone."""

    kind: str
    """Which kind it is."""

    def misfits(self, backbones: Mapping[str, BackboneSettings], config: Config) -> Iterator[tuple[str, str]]:
        """What does not fit the backbones that read the items, as (key, what is wrong)."""
        yield from ()


ItemEncoder = Annotated[ItemSettings, KindOf("items")]
