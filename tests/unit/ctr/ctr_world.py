"""A small catalogue and random impressions for tests of click-through models."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import TypeAdapter

from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.artifacts.tables import write_table
from tessera.content.fields import FieldContent, write_fields
from tessera.ctr.batch import Batch, Catalogue
from tessera.settings.clicks.base import CTRModel
from tessera.settings.ctr import ItemContent

ITEMS, LENGTH = 60, 90
READER = {"hidden": 8, "layers": 1, "heads": 2}
ENCODED = {"width": 8, "decoder_heads": 2, "documents": READER, "queries": READER, "token_dim": 8, "long": 60}
"""A small model that reads content."""


def settings(**keys: Any) -> Any:
    small = {"dim": 8, "category_dim": 8, "hidden": [16]}
    return TypeAdapter(CTRModel).validate_python({**small, **keys})


def make_codes(sizes: tuple[int, ...] = (3, 3, 4), ordered: bool = True, extra: bool = False) -> SemanticIds:
    """Codes of which many are equal; two items have none."""
    rng = np.random.default_rng(3)
    codes = np.stack([rng.integers(0, size, ITEMS + 1) for size in sizes], 1)
    codes[[0, 7, 20]] = ABSENT
    return SemanticIds(codes, (Part("text", sizes, ordered, extra),))


def write_content(folder: Path, items: int = ITEMS, **keys: Any) -> Path:
    """The content of a catalogue: item 4 has nothing, item 5 no picture, item 6 a picture that cannot be read."""
    rng = np.random.default_rng(2)
    words = ["red", "blue", "small", "round", "lamp", "vase", "oak", "glass"]
    titles = [" ".join(rng.choice(words, 3)) for _ in range(items)]
    told = [[("note", " ".join(rng.choice(words, rng.integers(1, 9))))] for _ in range(items)]
    images: list[str | None] = [f"{item}.png" for item in range(1, items + 1)]
    titles[3], told[3], images[3], images[4] = "", [], None, None
    folder.mkdir(parents=True, exist_ok=True)
    for name in images:
        if name is not None:
            Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(folder / name)
    (folder / "6.png").write_bytes(b"no picture")
    columns = {
        "item": range(1, items + 1), "raw_id": [f"i{i}" for i in range(items)], "title": titles,
        "attributes": pa.array(told, pa.map_(pa.string(), pa.string())), "image": pa.array(images, pa.string()),
    }  # fmt: skip
    write_table(folder / "items.parquet", pa.table(columns), "items", image_root=str(folder))
    settings = ItemContent.model_validate({"picture": 8, "patch": 4, "vocabulary": 300, **keys})
    write_fields(settings, folder / "items.parquet", folder / "content")
    return folder / "content"


@cache
def make_content() -> FieldContent:
    """That content, written once."""
    with tempfile.TemporaryDirectory() as folder:  # what is mapped stays readable
        return FieldContent(write_content(Path(folder)))


def make_catalogue(codes: SemanticIds | None = None) -> Catalogue:
    rng = np.random.default_rng(1)
    categories = rng.integers(0, 6, ITEMS + 1)  # some items have none
    categories[0] = 0
    popularity = rng.integers(0, 9, ITEMS + 1)
    popularity[[0, 5]] = 0
    codes = codes or make_codes()
    generator = torch.Generator().manual_seed(0)
    books = {(0, level): torch.randn(size, 6, generator=generator) for level, size in enumerate(codes.parts[0].sizes)}
    category, events = torch.from_numpy(categories), torch.from_numpy(popularity)
    return Catalogue(ITEMS, category, 5, events, codes, books, 9, content=make_content())


def make_batch(lengths: list[int], seed: int = 0, shared: bool = False) -> Batch:
    """Random impressions; with `shared` all have the history of the first row."""
    rng = np.random.default_rng(seed)
    rows, size = len(lengths), max(lengths)
    favourites = rng.integers(1, ITEMS + 1, 25)  # interests recur
    histories = rng.choice(favourites, (rows, size))
    ages = np.sort(rng.integers(0, 10**7, (rows, size)), 1)[:, ::-1].copy()
    if shared:
        histories[:], ages[:] = histories[0], ages[0]
    there = np.arange(size) < np.array(lengths)[:, None]
    return Batch(
        users=torch.from_numpy(rng.integers(1, 10, rows)),
        items=torch.from_numpy(rng.integers(1, ITEMS + 1, rows)),
        histories=torch.from_numpy(histories * there),
        lengths=torch.tensor(lengths),
        ages=torch.from_numpy(ages * there),
        labels=torch.from_numpy(rng.integers(0, 2, rows).astype(np.float32)),
    )
