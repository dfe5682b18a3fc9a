"""Item vectors of a trained run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tessera.settings.base import Settings


class CollaborativeTable(Settings):
    """The item vectors of a trained ID run: what histories alone say of items that have training interactions."""

    recipe: Literal["collaborative"] = "collaborative"
    system: str = "id"
    """A system with `items: ids`."""
    backbone: str = "sasrec"
    """The backbone under which it is trained."""
    seed: int = Field(1, ge=0)
    """The seed under which it is trained."""
