"""A world twice: as it is, and with the items of all held-out rows dealt out anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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


def with_items(data: Path, folder: Path, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Path:
    """A prepared dataset with other items, made from those there are and from which rows are held out."""
    shutil.copytree(data, folder)
    path = folder / "interactions.parquet"
    table = read_table(path, "interactions")
    held = pc.not_equal(table.column("split"), "train").to_numpy(zero_copy_only=False)
    items = change(table.column("item").to_numpy().copy(), held)
    place = table.column_names.index("item")
    changed = table.set_column(place, "item", pa.array(items, table.column("item").type))
    write_table(path, changed.replace_schema_metadata(None), "interactions", describe(path)["settings"])
    return folder


def dealt_out(items: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Items of held-out rows dealt out anew among them."""
    items[held] = np.random.default_rng(0).permutation(items[held])
    return items


def deal_out_anew(world: dict[str, Any], folder: Path) -> None:
    """Write the world into `raw` and `data`, and what nothing that trains may tell from it into `other`."""
    settings = TypeAdapter[Any](Dataset).validate_python(world)
    generate(settings, folder / "raw")
    prepare(folder / "raw", folder / "data", prepare_settings(settings))
    with_items(folder / "data", folder / "other", dealt_out)
