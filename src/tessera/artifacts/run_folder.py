"""The folder of a finished run: which of its files lies where, as the workflow left it or as `save` copied it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ITEMS = "items.parquet"
DESCRIPTION = "model.json"
POPULARITY = "popularity.safetensors"
"""Beside the items of a saved run; a dataset has its interactions instead."""


@dataclass(frozen=True)
class RunFolder:
    """`results/<dataset>/runs/<system>/<recommender>/seed-<n>`, or a folder that `save` or `export` wrote."""

    folder: Path

    @property
    def saved(self) -> bool:
        """Whether all that the run reads lies in its own folder, or should: a part of it may be lost."""
        return any((self.folder / name).is_file() for name in (ITEMS, POPULARITY))

    @property
    def root(self) -> Path:
        """Where tables, codes and models lie: `results/<dataset>`, or the folder of a saved run.

        Folders on the way may be links. Of a link to a run itself the dataset is found where the run lies.
        """
        above = self.folder.joinpath(*[".."] * (0 if self.saved else 4))
        named, real = Path(os.path.normpath(above)), Path(os.path.realpath(above))
        return real if (real / "data" / ITEMS).is_file() and not (named / "data" / ITEMS).is_file() else named

    @property
    def data(self) -> Path:
        """Folder of the items, and of the interactions where the workflow left them."""
        return self.folder if self.saved else self.root / "data"

    @property
    def items(self) -> Path:
        """Ids, titles and attributes of the items."""
        return self.data / ITEMS

    @property
    def model(self) -> Path:
        """The weights."""
        return self.folder / "model.safetensors"

    @property
    def description(self) -> Path:
        """Resolved settings, fingerprints of what was read, and how training went."""
        return self.folder / DESCRIPTION
