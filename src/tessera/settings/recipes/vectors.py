"""Item vectors that exist already."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class VectorsTable(Settings):
    """Item vectors that exist already: `.npy` (row = raw id) or Parquet (`raw_id` or `item`, and `embedding`)."""

    recipe: Literal["vectors"] = "vectors"
    path: str
    """The file, looked up like data files."""
