"""What recipes for item tables share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.kinds import KindOf


class Finish(Settings):
    """How pooled states become the rows of a table."""

    pca: int | None = Field(None, ge=1)
    """Keep so many principal components (all, where there are fewer); null keeps the vectors as they are."""
    whiten: float = Field(0.5, ge=0, le=1)
    """Divide every component by its standard deviation to this power: 1 makes all equally strong, 0 leaves them as they
    are, as published. What tells items apart is often in weak components, which an adapter learns slowly."""
    l2: bool = False
    """Scale every row to length one."""
    shuffle: int | None = Field(None, ge=0)
    """A control: deal the rows out anew among the items that have one, by this seed; null keeps them where they are."""


ItemTable = Annotated[RecipeSettings, KindOf("recipes")]
