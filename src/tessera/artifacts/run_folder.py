"""The folder of a finished run: which of its files lies where, as the workflow left it or as `save` copied it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ITEMS = "items.parquet"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class RunFolder:
    """`results/<dataset>/runs/<system>/<recommender>/seed-<n>`, or a folder that `save` or `export` wrote."""

    folder: Path

    @property
    def saved(self) -> bool:
        """Whether all that the run reads lies in its own folder."""
        return (self.folder / ITEMS).is_file()

    @property
    def root(self) -> Path:
        """Where tables, codes and models lie: `results/<dataset>`, or the folder of a saved run."""
        above = [".."] * (0 if self.saved else 4)
        return Path(os.path.normpath(self.folder.joinpath(*above)))

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
