"""Settings of every recipe for item tables, and of those that no language model makes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.embedding import AttributesTable, CRRLTable, HiddenTable, LRCLTable, SCFTTable, TextTable


class VectorsTable(Settings):
    """Item vectors that exist already: `.npy` (row = raw id) or Parquet (`raw_id` or `item`, and `embedding`)."""

    recipe: Literal["vectors"] = "vectors"
    path: str
    """The file, looked up like data files."""


class LatentTable(Settings):
    """The demo world's own attributes, one-hot: what a perfect reader of one channel could know."""

    recipe: Literal["latent"] = "latent"
    view: Literal["all", "text", "image"] = "all"
    """Every attribute, only those told by the text, or only those shown by the picture."""


class CollaborativeTable(Settings):
    """The item vectors of a trained ID run: what histories alone say of items that have training interactions."""

    recipe: Literal["collaborative"] = "collaborative"
    system: str = "id"
    """A system with `items: ids`."""
    backbone: str = "sasrec"
    """The backbone under which it is trained."""
    seed: int = Field(1, ge=0)
    """The seed under which it is trained."""


ItemTable = Annotated[
    VectorsTable
    | LatentTable
    | CollaborativeTable
    | TextTable
    | AttributesTable
    | HiddenTable
    | SCFTTable
    | LRCLTable
    | CRRLTable,
    Field(discriminator="recipe"),
]
