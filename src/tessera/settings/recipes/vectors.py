"""Item vectors that exist already."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.recipes.base import RecipeSettings


class VectorsTable(RecipeSettings):
    """Item vectors that exist already: `.npy` (row = raw id) or Parquet (`raw_id` or `item`, and `embedding`)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.vectors:make_table"
    recipe: Literal["vectors"] = "vectors"
    path: str
    """The file, looked up like data files."""
