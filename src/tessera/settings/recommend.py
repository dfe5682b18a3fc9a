"""Settings of the lists that are made for all users with a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.references import no_attribute
from tessera.settings.sources.base import ItemsFile

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Recommend(Settings):
    """Lists for all users, `recommendations/` of a dataset: after everything that is known of them."""

    k: int = Field(10, ge=1)
    """Length of a list; shorter where fewer items are left."""
    seen: bool = False
    """Also recommend items of the user's own history."""
    items: str | None = None
    """A stock list: a text file of raw item ids, one a line; only these are recommended. Null: the whole catalogue."""
    attribute: dict[str, str] | None = None
    """Only items with these attributes, `{name: value}`; null: all."""
    new_items: ItemsFile | None = None
    """A file of items that came after training, recommended beside the others. The tables of the run say where they
    stand, so that its items must enter by tables (`items: {table: ...}`). Null: the catalogue as it was trained."""
    users: str | None = None
    """A text file of raw user ids, one a line: lists for these alone. Null: every user of the dataset."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Attributes of which it is known that no item has them."""
        new = self.new_items.text if self.new_items is not None else []
        for name in self.attribute or {}:
            yield from ((f"attribute.{name}", text) for text in no_attribute(config, name, new))
