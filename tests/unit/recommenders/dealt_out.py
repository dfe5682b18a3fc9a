"""A world twice: as it is, and with the items of all held-out rows dealt out anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from tessera.artifacts.tables import describe, read_table, write_table
from tessera.data.bazaar.generate import generate
from tessera.data.prepare import prepare
from tessera.settings.sources.base import Dataset, prepare_settings


def deal_out_anew(world: dict[str, Any], folder: Path) -> None:
    """Write the world into `raw` and `data`, and what nothing that trains may tell from it into `other`."""
    settings = TypeAdapter[Any](Dataset).validate_python(world)
    generate(settings, folder / "raw")
    prepare(folder / "raw", folder / "data", prepare_settings(settings))
    shutil.copytree(folder / "data", folder / "other")
    path = folder / "other/interactions.parquet"
    table = read_table(path, "interactions")
    items = table.column("item").to_numpy().copy()
    held = np.flatnonzero(pc.not_equal(table.column("split"), "train").to_numpy(zero_copy_only=False))
    items[held] = np.random.default_rng(0).permutation(items[held])
    place = table.column_names.index("item")
    changed = table.set_column(place, "item", pa.array(items, pa.int32())).replace_schema_metadata(None)
    write_table(path, changed, "interactions", describe(path)["settings"])
