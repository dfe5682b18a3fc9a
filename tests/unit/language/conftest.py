"""Tiny real models in folders, and a tiny catalogue with pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vision import WORDS, tiny_built, write_built, write_pictured

from tessera.language.built import train_tokenizer
from tessera.settings.language import BuiltModel

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)


@pytest.fixture
def tiny() -> BuiltModel:
    """Settings of a built model that trains in a second."""
    return tiny_built()


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
    return write_built(tmp_path / "built", tiny)


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Path]:
    """`catalogue(count, images=..., texts=...)`: a prepared dataset's folder; names of pictures and titles by item."""

    def write(
        count: int, images: Sequence[str | None] | None = None, texts: Sequence[str | None] | None = None
    ) -> Path:
        return write_pictured(tmp_path, count, images, texts)

    return write
