"""Items as trainable vectors."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class IdItems(Settings):
    """A trainable vector an item."""

    kind: Literal["ids"] = "ids"
