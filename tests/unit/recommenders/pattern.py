"""A small prepared dataset with a pattern that a model can learn: item i is mostly followed by i + 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.interests import Interest, write_interests
from tessera.artifacts.tables import write_table
from tessera.plan.graph import Plan
from tessera.recommenders.inputs import RunInputs
from tessera.settings.config import load
from tessera.settings.runs import Run

ITEMS = 30


def write_dataset(folder: Path, users: int = 80, swap_targets: bool = False, timed: bool = False) -> Path:
    rng = np.random.default_rng(0)
    columns: dict[str, list] = {name: [] for name in ("user", "item", "position", "split")}
    for user in range(1, users + 1):
        length = int(rng.integers(4, 25))
        item = int(rng.integers(ITEMS))
        history = []
        for _ in range(length):
            history.append(item + 1)
            item = (item + 1) % ITEMS if rng.random() < 0.9 else int(rng.integers(ITEMS))
        if swap_targets:
            history[-1] = (history[-1] + 11) % ITEMS + 1
        columns["user"] += [user] * length
        columns["item"] += history
        columns["position"] += range(length)
        columns["split"] += ["train"] * (length - 2) + ["valid", "test"]
    n = len(columns["user"])
    times = pa.array([10 * position for position in columns["position"]]) if timed else pa.nulls(n, pa.int64())
    table = pa.table({**columns, "timestamp": times, "rating": pa.nulls(n, pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    ids = list(range(1, ITEMS + 1))
    empty = pa.array([[]] * ITEMS, pa.map_(pa.string(), pa.string()))
    items = {"item": ids, "raw_id": [f"i{i}" for i in ids], "title": [f"Item {i}" for i in ids], "attributes": empty}
    write_table(folder / "items.parquet", pa.table({**items, "image": pa.nulls(ITEMS, pa.string())}), "items")
    write_table(
        folder / "users.parquet",
        pa.table({"user": list(range(1, users + 1)), "raw_id": [f"u{u}" for u in range(1, users + 1)]}),
        "users",
    )
    return folder


def write_interests_of(path: Path, users: Sequence[int], width: int = 6, most: int = 3) -> Path:
    """What some users of the dataset are interested in: one interest, two, three, one ..., each a random vector."""
    counts = np.arange(len(users)) % most + 1
    told = [Interest(f"interest {number}", "", [1]) for number in range(counts.sum())]
    rows = np.random.default_rng(2).normal(size=(len(told), width)).astype(np.float32)
    write_interests(path, np.repeat(users, counts), told, rows)
    return path


def reads(table: Path | None = None, teacher: Path | None = None) -> RunInputs:
    """The inputs of a run that reads the table `t`, or is aligned, or does neither."""
    return RunInputs(tables={"t": str(table)} if table else {}, teacher=str(teacher) if teacher else None)


def make_run(
    recommender: str = "sasrec", system: dict | None = None, others: dict | None = None, **training: object
) -> Run:
    """One resolved run of a small backbone, or of a heuristic; `others` are systems that it reads runs of."""
    shape: dict = {"dim": 16, "max_length": 12, "dropout": 0.1}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "filter", "hstu", "srgnn"), shape),
        "tables": {
            "t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]},
            "f": {"recipe": "attributes", "model": "small"},
            "w": {"recipe": "interests", "model": "small"},
        },
        "semantic_ids": {"c": {"quantizer": "rq_kmeans", "tables": "t"}},
        "systems": {"s": system or {"items": "ids"}, **(others or {})},
        "training": {"epochs": 4, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **training},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [recommender], "seeds": [1]},
    }
    return Plan(load(config)).runs[0]
