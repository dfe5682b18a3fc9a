"""Item vectors of a trained run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.recipes.base import RecipeSettings
from tessera.settings.references import RunReference


class CollaborativeTable(RecipeSettings, RunReference):
    """The item vectors of a trained ID run: what histories alone say of items that have training interactions."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.collaborative:make_table"
    LEARNS: ClassVar[bool] = True
    READS_OF_DATASET: ClassVar[dict[str, str]] = {
        "interactions": "data/interactions.parquet", "users": "data/users.parquet",
    }  # fmt: skip
    recipe: Literal["collaborative"] = "collaborative"
    seed: int = Field(1, ge=0)
    """The seed under which it is trained."""
