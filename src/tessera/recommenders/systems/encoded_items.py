"""What recommenders have in common whose items enter through one item encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.systems.base import Catalogue, VectorRecommender


class EncodedItems(VectorRecommender):
    """A recommender that knows items by its encoder `items` alone."""

    items: ItemEncoder

    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `ItemEncoder.add_items`."""
        self.items.add_items(tables)

    def item_rows(self) -> Collection[str]:
        """See `ItemEncoder.item_rows`."""
        return [f"items.{name}" for name in self.items.item_rows()]

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`."""
        return self.items.known(met)

    def catalogue(self) -> Catalogue:
        """Histories read items as targets are scored."""
        vectors: Tensor = self.items()
        return Catalogue(vectors, vectors)
