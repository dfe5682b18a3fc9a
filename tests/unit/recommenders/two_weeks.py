"""A shop in two weeks: items come and go, and have other numbers; trained runs lie where the workflow keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tiny_mme_sid
import torch
from pattern import make_run, write_interests_of

from tessera.artifacts.codes import Part, SemanticIds, write_codes
from tessera.artifacts.models import write_model
from tessera.artifacts.run_folder import RunFolder
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import write_item_table, write_table
from tessera.recommenders.train import train_run
from tessera.serving.folder import run_files
from tessera.settings.runs import Run

FIRST = [f"i{n:02}" for n in range(26)]
"""Raw ids of the first week."""
SECOND = ["a0", "a1", *[f"i{n:02}" for n in range(3, 26)], "z0"]
"""Of the second: three are gone, three are new, two of them before all others."""
WEEK = 1000
"""When the second week begins."""

Log = list[tuple[str, str, int]]
"""User, item and time."""


def write_log(second: bool = True, users: int = 60) -> Log:
    """The item of a step is mostly the next of the week's catalogue."""
    rng = np.random.default_rng(0)
    rows: Log = []
    for user in range(users):
        for week, catalogue in enumerate([FIRST, SECOND]):
            item = int(rng.integers(len(catalogue)))
            # every fourth user stays away in the second week
            steps = 0 if week and user % 4 == 0 else int(rng.integers(5, 12))
            for step in range(steps):
                rows.append((f"u{user}", catalogue[item], week * WEEK + 20 * step + user % 20))
                item = (item + 1 if rng.random() < 0.9 else int(rng.integers(len(catalogue)))) % len(catalogue)
            if user == 1 and not week:  # the last of the week, of an item that stays
                rows.append(("u1", "i10", WEEK - 1))
    return [row for row in rows if second or row[2] < WEEK]


def write_data(
    folder: Path, rows: Log, catalogue: Sequence[str], split: str, cut: int = 0, unit: int = 1, timed: bool = True
) -> Path:
    """A prepared dataset.

    Args:
        folder: of the files.
        rows: in time order within a user; those of items outside of the catalogue are left out.
        catalogue: raw ids in the order of their numbers.
        split: leave_one_out, none, or global_temporal: a user's first two rows from `cut` on validate and test.
        cut: a time.
        unit: what times are multiplied by: 1000 counts milliseconds.
        timed: false leaves times out.
    """
    number = {raw: place for place, raw in enumerate(catalogue, 1)}
    users = list(dict.fromkeys(user for user, item, _ in rows if item in number))
    columns: dict[str, list[Any]] = {name: [] for name in ("user", "item", "timestamp", "position", "split")}
    for place, user in enumerate(users, 1):
        own = [(number[item], time) for name, item, time in rows if name == user and item in number]
        late = [step for step, (_, time) in enumerate(own) if time >= cut] if split == "global_temporal" else []
        own = own[: late[2]] if len(late) > 2 else own
        parts = ["train"] * len(own)
        if split == "leave_one_out" and len(own) >= 3:
            parts[-2:] = ["valid", "test"]
        for step, part in zip(late, ("valid", "test"), strict=False):
            parts[step] = part
        for position, ((item, time), part) in enumerate(zip(own, parts, strict=True)):
            for name, value in zip(columns, (place, item, time * unit, position, part), strict=True):
                columns[name].append(value)
    if not timed:
        columns["timestamp"] = [None] * len(columns["user"])
    table = pa.table({**columns, "rating": pa.nulls(len(columns["user"]), pa.float32())})
    settings = {"split": {"kind": split}}
    clock = {"time_unit": {1: "s", 1000: "ms"}[unit], "dated": True}
    write_table(folder / "interactions.parquet", table, "interactions", settings, **clock)
    ids = list(range(1, len(catalogue) + 1))
    empty = pa.array([[]] * len(ids), pa.map_(pa.string(), pa.string()))
    columns_of_items = {"item": ids, "raw_id": list(catalogue), "title": list(catalogue), "attributes": empty}
    write_table(
        folder / "items.parquet", pa.table({**columns_of_items, "image": pa.nulls(len(ids), pa.string())}), "items"
    )
    write_table(folder / "users.parquet", pa.table({"user": list(range(1, len(users) + 1)), "raw_id": users}), "users")
    return folder


def vector(raw: str, width: int) -> np.ndarray:
    """What a table says of an item: the same in both weeks."""
    return np.random.default_rng(sum(map(ord, raw)) * 97 + ord(raw[0])).normal(size=width).astype(np.float32)


def write_reads(root: Path, catalogue: Sequence[str], shift: int = 0) -> None:
    """Tables and codes by raw id, and what MME-SID reads; `shift` gives items other codes."""
    numbers = np.arange(1, len(catalogue) + 1)
    for name, width in (("t", 6), *tiny_mme_sid.TABLES.items()):
        write_item_table(root / f"tables/{name}.parquet", numbers, np.stack([vector(raw, width) for raw in catalogue]))
    each = np.stack([vector(raw + part, 5) for raw in catalogue for part in "ab"])
    write_item_sequences(root / "tables/f.parquet", np.repeat(numbers, 2), ["a", "b"] * len(catalogue), each)
    write_interests_of(root / "tables/w.parquet", [1, 2, 3])
    everything = sorted({*FIRST, *SECOND})
    place = np.array([everything.index(raw) + shift for raw in catalogue])
    codes = np.stack([place // 6, place % 6], 1) % 6
    for name, parts in (("c", ["t"]), ("codes", list(tiny_mme_sid.TABLES))):
        rows = np.concatenate([np.full((1, 2 * len(parts)), -1), np.tile(codes, len(parts))]).astype(np.int64)
        path = root / f"semantic_ids/{name}/codes.parquet"
        write_codes(path, SemanticIds(rows, tuple(Part(part, (6, 6)) for part in parts)), {}, {})
        width = 6 if name == "c" else tiny_mme_sid.WIDTH
        rng = np.random.default_rng(0)
        books = {
            f"codebooks.{part}.{level}": torch.from_numpy(rng.normal(size=(6, width)).astype(np.float32))
            for part in range(len(parts)) for level in (0, 1)
        }  # fmt: skip
        write_model(path.with_name("model.safetensors"), books, {})
    tiny_mme_sid.write_model_folder(root / "models/tiny")


TIGER = {
    "recommender": "tiger", "semantic_ids": "c", "dim": 16, "inner_dim": 32, "layers": 1, "heads": 2, "head_dim": 8,
}  # fmt: skip
SYSTEMS: dict[str, Any] = {
    "ids": {"items": "ids"},
    "table": {"items": {"table": "t", "adapter": [8], "id_residual": True}},
    "codes": {"items": {"semantic_ids": "c", "combine": "concat", "table": "t", "adapter": [8], "id_residual": True}},
    "dual_view": {"items": {"kind": "dual_view", "text": "t", "fine": "f", "width": 8, "adapter": [8]}},
    "findrec": {"recommender": "findrec", "text": "t", "width": 8, "alignment": {"dim": 4}},
    "eimf": {"recommender": "eimf", "interests": "w", "dim": 16, "max_length": 12, "adapter": [8]},
    "cider": {
        "recommender": "cider",
        "items": {"table": "t", "adapter": [8], "id_residual": True},
        "counterfactual": {"keep": "last", "tau": 0.4},
    },
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "adapter": [8]},
    "markov_mixture": {
        "recommender": "markov_mixture",
        "base": {"items": {"table": "t", "adapter": [8], "id_residual": True}},
        "similar": {"table": "t"},
        "kept": 20,
    },
    "tiger": TIGER,
    "mme_sid": {},
}
BY_ITEM = {"ids": ["items.weight"], "table": ["items.residual"], "codes": ["items.residual"],
           "findrec": ["items.weight"], "eimf": ["items.weight"],
           "i3_mrec": ["residual"], "cider": ["items.residual"], "markov_mixture": ["base.items.residual"],
           "mme_sid": ["heads.vectors"]}  # fmt: skip
"""What has a row an item, said here anew."""
ANEW = {"markov_mixture": ("chain.", "weight", "strength", "tried")}
"""How the names of that begin which every training makes of its own histories, whatever it goes on from."""


def resolved(name: str, recommender: str = "sasrec", **training: Any) -> Run:
    """A run of one of the systems."""
    if name == "mme_sid":
        return tiny_mme_sid.make_run({"epochs": 2, **training})
    run = make_run(recommender, system=SYSTEMS[name], **{"epochs": 3, **training})
    return run.model_copy(update={"system": name})


def train(root: Path, run: Run, start: Path | None = None, validated: Path | None = None, name: str = "") -> Path:
    """Train a run in `root/runs`, from the weights of another where a folder is named; gives its own folder.

    `name` sets the folder apart from those of other trainings of the run.
    """
    folder = root / "runs" / "-".join(filter(None, [name, run.path]))
    if start is not None:
        run = run.model_copy(update={"training": run.training.model_copy(update={"warm_start": str(start)})})
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.json").exists():  # the files of a run are known by its description
        write_model(folder / "model.safetensors", {"x": torch.zeros(1)}, {"run": run.model_dump(mode="json")})
        inputs = run_files(folder).inputs
        for file in ("model.json", "model.safetensors"):
            (folder / file).unlink()
    else:
        inputs = run_files(folder).inputs
    if start is not None:
        inputs = inputs.model_copy(update={"start": str(RunFolder(start).model)})
    train_run(run, root / "data", inputs, folder / "model.safetensors", root / "state", validated=validated)
    return folder
