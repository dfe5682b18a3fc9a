"""Tiny real models in folders, and a tiny catalogue with pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tessera.artifacts.tables import write_table
from tessera.language.built import make_image_processor, make_model, save_built, train_tokenizer
from tessera.language.drawn import draw
from tessera.settings.language import BuiltModel, Steps

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)

WORDS = ["title is Oak lamp; category is lamp; brand is Dunlin", "a lamp in teal, pattern dots, shape star"] * 4


@pytest.fixture
def tiny() -> BuiltModel:
    """Settings of a built model that trains in a second."""
    return BuiltModel(
        built="qwen2.5-vl", hidden=32, layers=1, vision_layers=1, heads=2, vocabulary=500,
        training=Steps(steps=6, batch=8, learning_rate=3e-3, warmup_steps=2, checkpoint_seconds=0, device="cpu"),
    )  # fmt: skip


def save_tokenizer(folder: Path, chat: bool = True) -> Any:
    """A byte-level tokenizer in the folder of another architecture."""
    tokenizer = train_tokenizer(WORDS, BuiltModel(built="qwen2.5-vl"))
    if not chat:
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture
def qwen2(tmp_path: Path) -> Path:
    """A causal language model in a folder."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = save_tokenizer(tmp_path / "qwen2")
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen2")
    return tmp_path / "qwen2"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """An encoder in a folder, saved without a pooler."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "title", "is", "oak", "lamp", ";"]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=64)
    tokenizer.save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(words),
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture
def built(tmp_path: Path, tiny: BuiltModel) -> Path:
    """A built model with random weights in a folder."""
    tokenizer = train_tokenizer(WORDS, tiny)
    save_built(tmp_path / "built", make_model(tiny, tokenizer), tokenizer, make_image_processor(tiny))
    return tmp_path / "built"


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Path]:
    """`catalogue(count, images=..., texts=...)`: a prepared dataset's folder; names of pictures and titles by item."""

    def write(
        count: int, images: Sequence[str | None] | None = None, texts: Sequence[str | None] | None = None
    ) -> Path:
        folder = tmp_path / "data"
        (tmp_path / "pictures").mkdir(exist_ok=True)
        for number, drawing in enumerate(draw(3, 0, count), 1):
            drawing.picture.save(tmp_path / "pictures" / f"{number}.png")
        rows = range(1, count + 1)
        titles = list(texts) if texts is not None else [f"Oak lamp No. {row}" for row in rows]
        told = [[("category", "lamp"), ("brand", "Dunlin")] if title else [] for title in titles]
        shown = list(images) if images is not None else [f"{row}.png" for row in rows]
        items = pa.table({
            "item": pa.array(rows, pa.int32()), "raw_id": [f"i{row}" for row in rows], "title": titles,
            "attributes": pa.array(told, pa.map_(pa.string(), pa.string())), "image": pa.array(shown, pa.string()),
        })  # fmt: skip
        write_table(folder / "items.parquet", items, "items", image_root=str(tmp_path / "pictures"))
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

    return write
