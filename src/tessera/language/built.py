"""A small Qwen2.5-VL from scratch: tokenizer, image processor and weights, in a folder as `save_pretrained` writes it.

The architecture, patch size, chat format and file names are those of the models that people download, so that what
reads the one reads the other; only the sizes and the vocabulary are its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tessera.artifacts.files import atomic, write_json, write_text
from tessera.artifacts.models import write_tensors
from tessera.settings.language import BuiltModel
from tessera.training.machine import seed_step

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
VIDEO = "<|video_pad|>"
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)

PATCH, MERGE = 14, 2
INITIAL_STD = 0.06
"""Weights this small and narrow learn in a third of the steps with it that they need with the usual 0.02."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Sequence[str], settings: BuiltModel) -> Any:
    """A byte-level BPE tokenizer of the texts (digits apart), in the class and the form of Qwen2's.

    Args:
        texts: what it is trained on, in an order that is always the same.
        settings: `vocabulary` is the most tokens, `context` what the tokenizer calls its longest text.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    empty = Qwen2Tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend = empty.backend_tokenizer
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],  # type: ignore[misc]
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        additional_special_tokens=list(SPECIAL[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )


def make_image_processor(settings: BuiltModel) -> Any:
    """Qwen2.5-VL's image processor (the one that needs no torchvision), with one size for all pictures."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    area = settings.image_size**2
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": area, "longest_edge": area}, patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2
    )


def make_config(settings: BuiltModel, tokenizer: Any) -> Any:
    """The model's configuration; ids of special tokens are the tokenizer's.

    Raises:
        ValueError: `hidden` is no multiple of four times the heads.
    """
    from transformers import Qwen2_5_VLConfig

    width, heads = settings.hidden, settings.heads
    if width % (4 * heads):
        raise ValueError(f"hidden is {width}; it must be a multiple of four times the heads ({heads})")
    half = width // heads // 2  # rotary frequencies: shared among time, height and width of a picture
    side = half // 3
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max(settings.context, 32),
        "initializer_range": INITIAL_STD,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [half - 2 * side, side, side],
        },
        "bos_token_id": None,
        "eos_token_id": token[END],
        "pad_token_id": token[PAD],
        "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": settings.vision_layers,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": heads,
        "out_hidden_size": width,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "fullatt_block_indexes": list(range(settings.vision_layers)),
        "initializer_range": INITIAL_STD,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token[IMAGE],
        video_token_id=token[VIDEO],
        vision_start_token_id=token[VISION_START],
        vision_end_token_id=token[VISION_END],
        tie_word_embeddings=True,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        dtype="float32",
    )


def make_model(settings: BuiltModel, tokenizer: Any) -> Any:
    """The model with random weights of `training.seed`, in float32."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    from tessera.language.together import attend_together

    seed_step(settings.training.seed)
    model = Qwen2_5_VLForConditionalGeneration(make_config(settings, tokenizer))
    attend_together(model)
    return model


def save_built(folder: str | Path, model: Any, tokenizer: Any, image_processor: Any) -> None:
    """Write the folder, each file atomically and the weights last: config.json, tokenizer.json,
    tokenizer_config.json, chat_template.jinja, preprocessor_config.json, model.safetensors.

    The same model gives the same bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**model.config.to_dict(), "architectures": ["Qwen2_5_VLForConditionalGeneration"], "dtype": "float32"}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", image_processor.to_dict())
    with atomic(folder / "tokenizer.json") as temporary:
        tokenizer.backend_tokenizer.save(str(temporary))
    said = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": tokenizer.model_max_length,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": PAD,
        "additional_special_tokens": list(SPECIAL[1:]),
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", said)
    write_text(folder / "chat_template.jinja", str(tokenizer.chat_template))
    tied = "lm_head.weight"  # the token embeddings under another name
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != tied}
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
