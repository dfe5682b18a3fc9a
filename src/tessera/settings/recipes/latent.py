"""The demo world's own attributes."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class LatentTable(Settings):
    """The demo world's own attributes, one-hot: what a perfect reader of one channel could know."""

    recipe: Literal["latent"] = "latent"
    view: Literal["all", "text", "image"] = "all"
    """Every attribute, only those told by the text, or only those shown by the picture."""
