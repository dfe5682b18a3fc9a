"""Settings of a vector an attribute."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.language import ReadText
from tessera.settings.recipes.base import Finish, RecipeSettings
from tessera.settings.references import SEVERAL_ROWS, Need


class AttributesTable(ReadText, Finish, RecipeSettings):
    """A vector an attribute instead of one an item: the fine view of DMESR."""

    IMPLEMENTATION: ClassVar[str] = "tessera.embedding.attributes:AttributesRecipe"
    recipe: Literal["attributes"] = "attributes"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over the tokens of an attribute, or the last one."""
    most: int = Field(16, ge=1)
    """Rows of an item: the first so many attributes; captions come last. What has no row is counted in the log."""

    def offers(self) -> frozenset[Need]:
        """A row an attribute."""
        return frozenset({SEVERAL_ROWS})
