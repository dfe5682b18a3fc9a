"""Everything that an MME-SID run reads, small: a language model of random weights, tables, semantic IDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pattern import ITEMS

from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.models import write_model
from tessera.artifacts.tables import write_item_table
from tessera.language.built import make_image_processor, make_model, save_built, train_tokenizer
from tessera.recommenders.inputs import RunInputs
from tessera.settings.language import BuiltModel
from tessera.settings.runs import Run
from tessera.settings.systems.mme_sid import MMESIDSystem
from tessera.settings.training import Steps, Training

WIDTH = 32
TABLES = {"ids": 8, "text": 12}
WITHOUT_TEXT = [7, 20]
MODEL = BuiltModel(
    built="qwen2.5-vl", hidden=WIDTH, layers=2, vision_layers=1, heads=2, vocabulary=500,
    training=Steps(steps=1, batch=2, device="cpu"),
)  # fmt: skip


def write_inputs(folder: Path, code_width: int = WIDTH, levels: int = 2, codes: int = 5) -> RunInputs:
    """A built model of random weights, two tables (one lacks items) and codes of either."""
    rng = np.random.default_rng(0)
    write_model_folder(folder / "model")
    rows = np.full((ITEMS + 1, levels * len(TABLES)), ABSENT, np.int64)
    tensors, tables = {}, {}
    for part, (name, width) in enumerate(TABLES.items()):
        items = np.array([i for i in range(1, ITEMS + 1) if name != "text" or i not in WITHOUT_TEXT])
        tables[name] = str(folder / f"{name}.parquet")
        write_item_table(tables[name], items, rng.normal(2, 3, (len(items), width)).astype(np.float32))
        rows[items, part * levels : (part + 1) * levels] = rng.integers(codes, size=(len(items), levels))
        for level in range(levels):
            book = rng.normal(0, 0.3 / (level + 1), (codes, code_width))
            tensors[f"codebooks.{part}.{level}"] = torch.from_numpy(book.astype(np.float32))
    path = folder / "codes.parquet"
    write_codes(path, SemanticIds(rows, tuple(Part(name, (codes,) * levels) for name in TABLES)), {}, {})
    write_model(path.with_name("model.safetensors"), tensors, {})
    return RunInputs(tables=tables, codes=str(path), model=str(folder / "model"))


def write_model_folder(folder: Path) -> None:
    """The built model; the same every time."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["title is Oak lamp; category is lamp"] * 4, MODEL)
    save_built(folder, make_model(MODEL, tokenizer), tokenizer, make_image_processor(MODEL))


def make_run(training: dict[str, Any] | None = None, **settings: Any) -> Run:
    """A run on those inputs; LoRA drops nothing out unless the settings say so."""
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    method = MMESIDSystem.model_validate(
        {"semantic_ids": "codes", "model": "tiny", "max_length": 12, "lora": lora, **settings}
    )
    shared = {"epochs": 2, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu"}
    return Run(
        system="mme_sid", recommender="mme_sid", seed=1, method=method, model=MODEL,
        training=Training.model_validate({**shared, **(training or {})}), tables=list(TABLES),
    )  # fmt: skip
