"""Settings of a vector an attribute."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.language import ReadText
from tessera.settings.recipes.base import Finish


class AttributesTable(ReadText, Finish):
    """A vector an attribute instead of one an item: the fine view of DMESR."""

    recipe: Literal["attributes"] = "attributes"
    pooling: Literal["mean", "last"] = "mean"
    """Mean over the tokens of an attribute, or the last one."""
    most: int = Field(16, ge=1)
    """Rows of an item: the first so many are kept."""
