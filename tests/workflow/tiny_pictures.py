"""Small picture encoders with random weights, as `save_pretrained` writes them, of every architecture that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t

SIDE, PATCH = 28, 14
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIDE,
    "patch_size": PATCH,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40,
    "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SIZE = {"height": SIDE, "width": SIDE}


def _clip() -> tuple[Any, Any]:
    model = t.CLIPModel(t.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))
    return model, t.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIZE)


def _clip_vision() -> tuple[Any, Any]:
    model = t.CLIPVisionModel(t.CLIPVisionConfig(**VISION))
    return model, t.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIZE)


def _siglip() -> tuple[Any, Any]:
    model = t.SiglipModel(t.SiglipConfig(text_config=TEXT, vision_config=VISION))
    return model, t.SiglipImageProcessorPil(size=SIZE)


def _siglip2() -> tuple[Any, Any]:
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    model = t.Siglip2Model(t.Siglip2Config(text_config=TEXT, vision_config=vision))
    return model, t.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16)


def _dinov2() -> tuple[Any, Any]:
    model = t.Dinov2Model(t.Dinov2Config(**VISION))
    return model, t.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)


def _registers() -> tuple[Any, Any]:
    model = t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3))
    return model, t.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)


ENCODERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "clip": _clip, "clip_vision_model": _clip_vision, "siglip": _siglip, "siglip2": _siglip2, "dinov2": _dinov2,
    "dinov2_with_registers": _registers,
}  # fmt: skip


def write_encoder(folder: Path, kind: str) -> Path:
    """A random encoder of a kind in a folder, its weights far enough from zero that pictures differ."""
    torch.manual_seed(0)
    model, processor = ENCODERS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
