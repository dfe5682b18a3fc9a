"""Tiny real language models with a real tokenizer, and a small catalogue with histories, for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from transformers import BertConfig, BertModel, Qwen2Config, Qwen2ForCausalLM

from tessera.artifacts.tables import write_table
from tessera.language.built import train_tokenizer
from tessera.language.models import LanguageModel
from tessera.settings.language import BuiltModel

WIDTH = 32
COLOURS = ["red", "green", "blue", "yellow", "black"]
KINDS = ["lamp", "chair", "kettle", "carpet"]
STORES = ["North Shop", "Harbour", "Mill Lane"]


def attributes_of(item: int) -> list[tuple[str, str]]:
    if item == 4:
        return []
    return [
        ("kind", KINDS[item % 4]),
        ("colour", COLOURS[item % 5]),
        ("store", STORES[item % 3]),
        ("price", f"{3 * item}.50"),
        ("made", "by hand in a small workshop by the sea" if item % 7 == 0 else "in a factory"),
    ]


def write_catalogue(path: Path, items: int = 20, shuffled: bool = False) -> Path:
    """items.parquet: item 3 has one attribute, item 4 nothing at all."""
    ids = list(range(1, items + 1))
    if shuffled:
        ids = np.random.default_rng(1).permutation(ids).tolist()
    titles = [None if i in (3, 4) else f"{COLOURS[i % 5]} {KINDS[i % 4]} {i}" for i in ids]
    pairs = [[("kind", "single")] if i == 3 else attributes_of(i) for i in ids]
    columns = {
        "item": ids,
        "raw_id": [f"raw{i}" for i in ids],
        "title": pa.array(titles, pa.string()),
        "attributes": pa.array(pairs, pa.map_(pa.string(), pa.string())),
        "image": pa.nulls(len(ids), pa.string()),
    }
    write_table(path, pa.table(columns), "items")
    return path


def write_data(folder: Path, items: int = 20, users: int = 12) -> Path:
    """A prepared dataset; the last item has held-out interactions only."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(1, users + 1):
        history = generator.permutation(items - 1)[:5] + 1
        rows += [(user, int(item), place, place, "train") for place, item in enumerate(history)]
        rows.append((user, items, 9, 9, "test"))
    # every item but the last is trained on
    rows += [(users + 1, item, item, item, "train") for item in range(1, items)]
    user, item, timestamp, position, split = map(list, zip(*rows, strict=True))
    columns = {"user": user, "item": item, "timestamp": timestamp, "position": position, "split": split}
    table = pa.table({**columns, "rating": pa.nulls(len(rows), pa.float32())})
    write_table(folder / "interactions.parquet", table, "interactions")
    names = {"user": list(range(1, users + 2)), "raw_id": [f"u{n}" for n in range(1, users + 2)]}
    write_table(folder / "users.parquet", pa.table(names), "users")
    write_catalogue(folder / "items.parquet", items)
    return folder


@cache
def tokenizer() -> Any:
    texts = [
        "; ".join(
            f"{name} is {value}" for name, value in [("title", f"{COLOURS[i % 5]} {KINDS[i % 4]}"), *attributes_of(i)]
        )
        for i in range(1, 60)
    ]
    texts += ["The item has the following attributes.", "You are an expert who writes descriptions. user system"] * 5
    return train_tokenizer(texts, BuiltModel(built="qwen2.5-vl", vocabulary=400, context=96))


def tiny_model(kind: Literal["decoder", "encoder"] = "decoder", layers: int = 2, seed: int = 0) -> LanguageModel:
    """The same weights at every call with the same arguments."""
    torch.manual_seed(seed)
    words = tokenizer()
    full: Any
    if kind == "decoder":
        full = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(words),
                hidden_size=WIDTH,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=48,
                max_position_embeddings=256,
                initializer_range=0.06,
            )
        )
        tower = full.model
    else:
        full = tower = BertModel(
            BertConfig(
                vocab_size=len(words),
                hidden_size=WIDTH,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=256,
                initializer_range=0.1,
            )
        )
    full.eval().requires_grad_(False)
    return LanguageModel(full, tower, words, kind, WIDTH, 256, None, torch.device("cpu"))
