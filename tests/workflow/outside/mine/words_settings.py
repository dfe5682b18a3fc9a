"""Settings of tables of words."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tessera.settings.recipes.base import RecipeSettings


class Words(RecipeSettings):
    """Which words an item's title and attributes hold, dealt out to columns by their hash; no model reads them."""

    IMPLEMENTATION: ClassVar[str] = "mine.words:make_table"
    width: int = Field(32, ge=2)
    """Columns of the table."""
