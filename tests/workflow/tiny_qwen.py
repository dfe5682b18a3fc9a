"""Small random models of the architectures that people download, as `save_pretrained` writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tessera.language.built import make_image_processor, make_model, train_tokenizer
from tessera.settings.language import BuiltModel

WORDS = [
    "title is Oak lamp; category is lamp; brand is Dunlin", "Describe the item in this picture.",
    "The product has the following attributes.", "Describe this item by its picture and its attributes.",
] * 6  # fmt: skip


def write_qwen_vl(folder: Path) -> Path:
    """Qwen2.5-VL of one layer, with a tokenizer, a chat template and an image processor."""
    settings = BuiltModel(built="qwen2.5-vl", hidden=32, layers=1, vision_layers=1, heads=2, vocabulary=500)
    tokenizer = train_tokenizer(WORDS, settings)
    model = make_model(settings, tokenizer)
    weights = model.get_output_embeddings().weight.data
    for token in range(len(weights)):  # random weights as they come may answer nothing
        if not tokenizer.decode([token], skip_special_tokens=True).strip().isalpha():
            weights[token] = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor(settings).save_pretrained(folder)
    return folder


def write_qwen(folder: Path) -> Path:
    """Qwen2.5 of two layers with a tokenizer."""
    tokenizer = train_tokenizer(WORDS, BuiltModel(built="qwen2.5-vl", vocabulary=500))
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
