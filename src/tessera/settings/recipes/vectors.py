"""Item vectors that exist already."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.missing import Modality
from tessera.settings.recipes.base import RecipeSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class VectorsTable(RecipeSettings):
    """Item vectors that exist already: `.npy` (row = raw id) or Parquet (`raw_id` or `item`, and `embedding`)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.vectors:make_table"
    recipe: Literal["vectors"] = "vectors"
    path: str
    """The file, looked up like data files."""
    made_from: list[Modality] = Field(default_factory=list)
    """What the vectors say: `[image]`, `[text]` or both. An item that loses it (`missing`) has no row."""

    @property
    def takes_new(self) -> bool:
        """Its file may tell of more items than training knew."""
        return True

    def modalities(self, config: Config) -> frozenset[str]:
        """What the config says of the file."""
        return frozenset(self.made_from)
