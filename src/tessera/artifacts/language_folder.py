"""What the folder of a model has to hold, and what in it is refused: known from its files before any is loaded.

Whole parts only: a folder without its tokenizer gives an empty one, a cut weight file a riddle. And nothing that leads
elsewhere: adapters name other weights, some settings name code or weights that would be fetched, and no fingerprint of
the folder knows of either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZERS = (
    ("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tokenizer.model",), ("spiece.model",),
    ("sentencepiece.bpe.model",), ("spm.model",), ("tekken.json",),
)  # fmt: skip
"""Files that make a tokenizer, one row each."""
_OF_CHARACTERS = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers without a vocabulary."""
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_DESCRIPTIONS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "chat_template.json", *_PROCESSORS, "video_preprocessor_config.json",
)  # fmt: skip
_LARGEST_READ = 1 << 20
"""Bytes of JSON that are read to the end here; of larger files the two ends are looked at."""
_MOST_LAYERS = 10_000
_LARGEST_HEADER = 100_000_000


PICTURE_ENCODERS = {
    "clip": ("projection", "pooler", "first", "mean"), "clip_vision_model": ("pooler", "first", "mean"),
    "siglip": ("pooler", "mean"), "siglip_vision_model": ("pooler", "mean"),
    "siglip2": ("pooler", "mean"), "siglip2_vision_model": ("pooler", "mean"),
    "dinov2": ("pooler", "first", "mean"), "dinov2_with_registers": ("pooler", "first", "mean"),
}  # fmt: skip
"""`model_type` of the picture encoders that are read, and the ways in which each sums a picture up, the best first."""


class FolderError(ValueError):
    """A folder from which no model is read."""


def check_language_folder(folder: Path) -> dict[str, Any]:
    """The content of config.json of a folder that holds every part of a language model, and leads nowhere else.

    Raises:
        FolderError: it does not; the message names the file and what to do.
    """
    config = _check_model_folder(folder, "tokenizer.json")
    if config.get("model_type") in PICTURE_ENCODERS:
        raise FolderError(
            f"{folder}: is a picture encoder ({config['model_type']}), expected a language model; recipe image reads it"
        )
    _check_tokenizer(folder)
    architecture = str((config.get("architectures") or [""])[0])
    if "vision_config" in config and not architecture.endswith("ForCausalLM"):
        _need_one(folder, [(name,) for name in _PROCESSORS], "the image processor")
    return config


def check_picture_folder(folder: Path, pooling: str = "auto") -> dict[str, Any]:
    """The content of config.json of a folder that holds every part of a picture encoder, and leads nowhere else.

    Args:
        pooling: how a picture is summed up; "auto" takes any.
    Raises:
        FolderError: it does not, is another model, or sums nothing up so; the message names the file and what to do.
    """
    config = _check_model_folder(folder, "preprocessor_config.json")
    check_picture_config(folder / "config.json", config, pooling)
    _need_one(folder, [(name,) for name in _PROCESSORS], "the image processor")
    return config


def check_picture_config(described: Path, config: dict[str, Any], pooling: str = "auto") -> None:
    """Refuse a config.json that describes no picture encoder, or one that does not sum pictures up as asked.

    Raises:
        FolderError: so it is.
    """
    kind = config.get("model_type")
    ways = PICTURE_ENCODERS.get(str(kind))
    if ways is None:
        hint = "; recipe hidden asks it about pictures" if "vision_config" in config else ""
        raise FolderError(
            f"{described}: model_type {kind!r} is no picture encoder that is read here{hint} "
            f"(known: {', '.join(PICTURE_ENCODERS)})"
        )
    if pooling not in ("auto", *ways):
        raise FolderError(f"{described}: {kind} has no pooling {pooling!r} (it has: {', '.join(ways)})")


def _check_model_folder(folder: Path, beside: str) -> dict[str, Any]:
    """The content of config.json of a folder with whole weights that leads nowhere else."""
    if not (folder / "config.json").is_file():
        raise FolderError(
            f"{folder}: is no model folder: there is no config.json (expected config.json, *.safetensors and "
            f"{beside}, as `save_pretrained` writes them)"
        )
    for name in _DESCRIPTIONS:
        _check_json(folder / name)
    config = _read_object(folder / "config.json")
    _check_adapter(folder / "adapter_config.json")
    _check_settings(folder / "config.json", config)
    _check_weights(folder)
    return config


# ---------------------------------------------------------------- JSON


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path}: is not JSON ({error}); fetch or save it again") from None
    if not isinstance(content, dict):
        raise FolderError(f"{path}: expected a JSON object, found {str(content)[:40]!r}; fetch or save it again")
    return content


def _check_json(path: Path) -> None:
    if not path.is_file():
        return
    if path.stat().st_size <= _LARGEST_READ:
        _read_object(path)
        return
    with path.open("rb") as file:
        first = file.read(64).lstrip()[:1]
        file.seek(-64, os.SEEK_END)
        last = file.read().rstrip()[-1:]
    if (first, last) != (b"{", b"}"):
        raise FolderError(f"{path}: is cut off or no JSON object; fetch or save it again")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value at any depth, with what stands there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


# ---------------------------------------------------------------- what leads elsewhere


def _check_adapter(adapter: Path) -> None:
    if adapter.exists():
        raise FolderError(
            f"{adapter}: this folder holds an adapter, whose base weights lie elsewhere and would be read from there; "
            "merge it into them (peft: merge_and_unload, then save_pretrained) and name that folder, or remove the "
            "adapter's files where the folder holds the whole model"
        )


def _check_settings(described: Path, config: dict[str, Any]) -> None:
    for key, value in _entries(config):
        if "implementation" in key and "/" in json.dumps(value):
            raise FolderError(
                f"{described}: {key} is {str(value)[:80]!r}, which asks for code of a repository; code is not fetched: "
                "take the key out"
            )
        if ("layers" in key or key == "depth") and isinstance(value, int) and value > _MOST_LAYERS:
            raise FolderError(f"{described}: {key} is {value:,}, which no model has; fetch or save it again")
        if key in ("use_kernels", "kernel_config") and value:
            raise FolderError(
                f"{described}: {key} asks for kernels of a repository, which are not fetched: take it out"
            )
        if key == "use_pretrained_backbone" and value:
            raise FolderError(
                f"{described}: {key} asks for weights of another model, which are not fetched: take it out"
            )
        if key in ("quantization_config", "compression_config") and isinstance(value, dict):
            method = value.get("quant_method", "bitsandbytes" if "load_in_4bit" in value else None)
            if method != "bitsandbytes":
                raise FolderError(
                    f"{described}: {key}: the weights are quantised by {method!r}, whose code is not here and would be "
                    "fetched; take the model's plain weights, and `quantization: 8bit` or 4bit"
                )


# ---------------------------------------------------------------- parts


def lacking_weights(folder: Path) -> list[str]:
    """Weight files that the folder should hold and does not.

    Raises:
        FolderError: the index of the weights cannot be read, or names files outside of the folder.
    """
    index = folder / _INDEX
    if index.is_file():
        return [name for name in sorted(set(_shards(index).values())) if not (folder / name).is_file()]
    return [] if (folder / _WEIGHTS).is_file() else [_WEIGHTS]


def _shards(index: Path) -> dict[str, str]:
    """Tensor -> file."""
    weight_map = _read_object(index).get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map and all(isinstance(n, str) for n in weight_map.values())):
        raise FolderError(f"{index}: has no weight_map of tensors to files; fetch or save it again")
    for name in weight_map.values():
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise FolderError(f"{index}: names {name!r}; expected a .safetensors file beside it")
    return weight_map


def _check_weights(folder: Path) -> None:
    if lacking := lacking_weights(folder):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise FolderError(
                f"{folder}: holds weights only as pickles ({', '.join(pickles[:3])}), which can run code and are not "
                "read; convert them to model.safetensors"
            )
        raise FolderError(f"{folder}: lacks {', '.join(lacking[:3])}; fetch or save the weights again")
    index = folder / _INDEX
    wanted: dict[str, set[str]] = {_WEIGHTS: set()} if (folder / _WEIGHTS).is_file() else {}
    for tensor, name in (_shards(index) if index.is_file() else {}).items():
        wanted.setdefault(name, set()).add(tensor)
    for name, tensors in wanted.items():
        if absent := sorted(tensors - _tensor_names(folder / name)):
            raise FolderError(f"{folder / name}: lacks {absent[0]}, which {_INDEX} says it holds; fetch it again")


def _tensor_names(path: Path) -> set[str]:
    """Names in a safetensors file, which has the length that its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
                raise ValueError
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise FolderError(f"{path}: is cut off, damaged or no safetensors file; fetch or save it again") from None
    return set(header)


def _check_tokenizer(folder: Path) -> None:
    described = folder / "tokenizer_config.json"
    if described.is_file() and _read_object(described).get("tokenizer_class") in _OF_CHARACTERS:
        return
    _need_one(folder, _TOKENIZERS, "the tokenizer")


def _need_one(folder: Path, kinds: Any, what: str) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in kinds):
        known = ", ".join(" with ".join(names) for names in kinds)
        raise FolderError(f"{folder}: lacks {what} (one of {known}); fetch the whole folder, or save it there too")
