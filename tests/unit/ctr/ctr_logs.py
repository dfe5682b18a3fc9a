"""Prepared datasets made by hand, for tests of samples and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from tessera.artifacts.tables import write_table
from tessera.settings.ctr import CTRRun, Samples

Row = tuple[int, int, int | None, float | None]
"""User, item, time, rating."""


def samples_settings(**keys: Any) -> Any:
    return TypeAdapter(Samples).validate_python({"source": "impressions", **keys})


def write_log(folder: Path, rows: list[Row], items: int, categories: dict[int, str] | None = None) -> Path:
    """A dataset of these rows, which are in time order within a user."""
    users = max(row[0] for row in rows)
    seen: dict[int, int] = {}
    positions = []
    for user, *_ in rows:
        positions.append(seen.get(user, 0))
        seen[user] = positions[-1] + 1
    columns = dict(zip(("user", "item", "timestamp", "rating"), zip(*rows, strict=True), strict=True))
    log = pa.table({**columns, "position": positions, "split": ["train"] * len(rows)})
    write_table(folder / "interactions.parquet", log, "interactions")
    told = [[("category", (categories or {})[i])] if i in (categories or {}) else [] for i in range(1, items + 1)]
    catalogue = pa.table(
        {
            "item": range(1, items + 1),
            "raw_id": [f"i{i}" for i in range(1, items + 1)],
            "title": [f"item {i}" for i in range(1, items + 1)],
            "attributes": pa.array(told, pa.map_(pa.string(), pa.string())),
            "image": pa.nulls(items, pa.string()),
        }
    )
    write_table(folder / "items.parquet", catalogue, "items")
    who = pa.table({"user": range(1, users + 1), "raw_id": [f"u{u}" for u in range(1, users + 1)]})
    write_table(folder / "users.parquet", who, "users")
    return folder


def random_rows(
    users: int = 12, items: int = 30, length: int = 60, seed: int = 0, ties: bool = True, rating: bool = True
) -> list[Row]:
    """Users who click on items of their own half of the catalogue."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(1, users + 1):
        times = np.sort(rng.integers(0, 40 if ties else 10**6, length))
        for time in times:
            item = int(rng.integers(1, items + 1))
            liked = rng.random() < (0.85 if (item + user) % 2 else 0.15)
            rows.append((user, item, int(time), float(liked) if rating else None))
    return rows


def make_run(seed: int = 1, max_history: int | None = None, training: Any = None, **model: Any) -> CTRRun:
    small = {"model": "avg", "dim": 8, "category_dim": 4, "hidden": [16]}
    return CTRRun.model_validate(
        {
            "name": "tried",
            "seed": seed,
            "model": {**small, **model},
            "training": {"batch": 32, "learning_rate": 0.01, "device": "cpu", **(training or {})},
            "semantic_ids": model.get("model") == "r2led",
            "max_history": max_history,
        }
    )
