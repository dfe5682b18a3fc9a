"""Items that are like an item, by what a table says of them."""

from __future__ import annotations

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.references import TableName

OF_SIMILAR = "is read with `similar` alone, which says from whom is borrowed"
"""Why nothing reads a strength where it is null."""


class SimilarItems(Settings):
    """The items that are most similar to an item, by cosine."""

    table: TableName | None = None
    """Name under `tables`; null takes the item vectors that the system itself has learned."""
    neighbours: int = Field(20, ge=1, le=10_000)
    """Similar items an item."""
