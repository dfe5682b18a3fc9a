"""A tiny built vision model, and a tiny catalogue with pictures, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.tables import write_table
from tessera.language.built import make_image_processor, make_model, save_built, train_tokenizer
from tessera.language.drawn import draw
from tessera.settings.language import BuiltModel
from tessera.settings.training import Steps

WORDS = ["title is Oak lamp; category is lamp; brand is Dunlin", "a lamp in teal, pattern dots, shape star"] * 4


def tiny_built(**training: Any) -> BuiltModel:
    """Settings of a built model that trains in a second."""
    steps = {"steps": 6, "batch": 8, "learning_rate": 3e-3, "warmup_steps": 2, "checkpoint_seconds": 0, "device": "cpu"}
    return BuiltModel(
        built="qwen2.5-vl", hidden=32, layers=1, vision_layers=1, heads=2, vocabulary=500,
        training=Steps.model_validate({**steps, **training}),
    )  # fmt: skip


def write_built(folder: Path, settings: BuiltModel) -> Path:
    """A built model with random weights in a folder."""
    tokenizer = train_tokenizer(WORDS, settings)
    save_built(folder, make_model(settings, tokenizer), tokenizer, make_image_processor(settings))
    return folder


def write_pictured(
    root: Path, count: int, images: Sequence[str | None] | None = None, texts: Sequence[str | None] | None = None
) -> Path:
    """A prepared dataset in `root/data` of items with pictures in `root/pictures`; its folder."""
    folder = root / "data"
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for number, drawing in enumerate(draw(3, 0, count), 1):
        drawing.picture.save(root / "pictures" / f"{number}.png")
    rows = range(1, count + 1)
    titles = list(texts) if texts is not None else [f"Oak lamp No. {row}" for row in rows]
    told = [[("category", "lamp"), ("brand", "Dunlin")] if title else [] for title in titles]
    shown = list(images) if images is not None else [f"{row}.png" for row in rows]
    items = pa.table({
        "item": pa.array(rows, pa.int32()), "raw_id": [f"i{row}" for row in rows], "title": titles,
        "attributes": pa.array(told, pa.map_(pa.string(), pa.string())), "image": pa.array(shown, pa.string()),
    })  # fmt: skip
    write_table(folder / "items.parquet", items, "items", image_root=str(root / "pictures"))
    users = 4
    write_table(
        folder / "users.parquet",
        pa.table({"user": pa.array(range(1, users + 1), pa.int32()), "raw_id": [f"u{u}" for u in range(users)]}),
        "users",
    )
    per_user = count - 1  # the last item is in nobody's training history
    order = np.concatenate([np.random.default_rng(u).permutation(per_user) + 1 for u in range(users)])
    kinds = (["train"] * per_user + ["test"]) * users
    log = np.concatenate([np.append(part, count) for part in np.split(order, users)])
    interactions = pa.table({
        "user": pa.array(np.repeat(np.arange(1, users + 1), per_user + 1), pa.int32()),
        "item": pa.array(log, pa.int32()), "timestamp": pa.nulls(len(log), pa.int64()),
        "position": pa.array(list(range(per_user + 1)) * users, pa.int32()),
        "rating": pa.nulls(len(log), pa.float32()), "split": kinds,
    })  # fmt: skip
    write_table(folder / "interactions.parquet", interactions, "interactions")
    return folder
