"""Items as trainable vectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.items.base import ItemSettings
from tessera.settings.references import ITEM_VECTORS, Need


class IdItems(ItemSettings):
    """A trainable vector an item."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.item_encoders.ids:IdItemEncoder"
    kind: Literal["ids"] = "ids"

    def offers(self) -> frozenset[Need]:
        """Vectors that others may read once they are trained."""
        return frozenset({ITEM_VECTORS})
