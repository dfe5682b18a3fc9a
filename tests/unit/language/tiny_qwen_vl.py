"""Small random models of every vision-language architecture whose pictures are read, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_vision import WORDS

from tessera.language.built import make_image_processor, train_tokenizer
from tessera.settings.language import BuiltModel

TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
WIDTH = 32


def write_any_qwen_vl(folder: Path, model_type: str) -> Path:
    """Two layers of each part, with a tokenizer, a chat template and an image processor."""
    import transformers

    settings = BuiltModel(built="qwen2.5-vl", hidden=WIDTH, layers=2, vision_layers=2, heads=2, vocabulary=500)
    tokenizer = train_tokenizer(WORDS, settings)
    token = tokenizer.convert_tokens_to_ids
    text: dict[str, Any] = {
        "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    side = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2, "depth": 2}
    vision: dict[str, dict[str, Any]] = {
        "qwen2_vl": {**side, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
        "qwen2_5_vl": {
            **side, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 48,
            "fullatt_block_indexes": [1], "window_size": 56,
        },
        "qwen3_vl": {
            **side, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 48,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
        },
    }  # fmt: skip
    if model_type == "qwen3_vl":
        text |= {"head_dim": 16}
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[model_type]
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=vision[model_type], image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"), vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor(settings).save_pretrained(folder)
    return folder
