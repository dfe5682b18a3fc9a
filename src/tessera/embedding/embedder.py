"""A trained embedder: LoRA of a language model, the reasoning attention, the temperature; on disk and back.

`model.safetensors` holds `lora/<module>.lora_A.weight`, `attention/<name>` and `temperature`; `model.json` beside it
the recipe and its settings. The language model's own weights are there (`full/<name>`) only if they were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tessera.artifacts.models import read_model, write_model
from tessera.artifacts.tables import ArtifactError
from tessera.language.lora import add_lora, lora_weights, merge_lora
from tessera.language.reasoning import ReasoningAttention
from tessera.settings.lora import LoRA

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


@dataclass
class Embedder:
    """What was trained in a language model."""

    adapters: Mapping[str, Tensor]
    """LoRA's matrices, from `lora_weights` or as they were read; empty where there are none."""
    lora: LoRA | None
    """Their settings; None where there are none."""
    attention: ReasoningAttention | None
    """The reasoning attention, where there is one."""
    temperature: Tensor | float | None
    """Of the loss, where it has one."""
    description: Mapping[str, Any]
    """What model.json says: JSON; `recipe` and `settings` at least."""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """The model's own, by name, where they were trained; empty where adapters were."""


def save_embedder(path: Path, embedder: Embedder) -> None:
    """Write `path` (model.safetensors) and model.json."""
    tensors: dict[str, Tensor] = {f"lora/{name}": weight for name, weight in embedder.adapters.items()}
    tensors |= {f"full/{name}": weight for name, weight in embedder.weights.items()}
    description: dict[str, Any] = dict(embedder.description)
    if embedder.lora is not None:
        description["lora"] = embedder.lora.model_dump(mode="json")
    if (attention := embedder.attention) is not None:
        tensors |= {f"attention/{name}": weight for name, weight in attention.state_dict().items()}
        description["attention"] = {"rope": attention.rope, "last_tokens": attention.last_tokens}
    if embedder.temperature is not None:
        tensors["temperature"] = torch.as_tensor(embedder.temperature).detach().float().reshape(1)
    write_model(path, tensors, description)


def load_embedder(
    model: LanguageModel, path: Path, merge: bool, attention: ReasoningAttention | None = None
) -> Embedder:
    """Put a trained embedder back into the language model that it was trained on; the model is changed.

    Args:
        model: freshly loaded, without adapters.
        path: of model.safetensors.
        merge: add the adapters to the weights, or leave them beside, frozen; weights of 8 or 4 bits take nothing in.
        attention: takes the weights of the trained one; None where the recipe has none.
    Raises:
        ArtifactError: a file is missing, or the embedder does not belong to this model or this attention.
    """
    tensors, description = read_model(path)
    parts: dict[str, dict[str, Tensor]] = {"lora": {}, "attention": {}, "temperature": {}, "full": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    lora = LoRA.model_validate(description["lora"]) if "lora" in description else None
    if lora is not None:
        add_lora(model.tower, lora)
        _fill(path, lora_weights(model.tower), parts["lora"])
        if merge and not model.quantized:
            merge_lora(model.tower)
    own = {name: weight for name, weight in model.full.named_parameters() if name in parts["full"]}
    _fill(path, own, parts["full"])
    model.tower.requires_grad_(False).eval()
    _fill(path, dict(attention.named_parameters()) if attention is not None else {}, parts["attention"])
    temperature = float(tensors["temperature"]) if "temperature" in tensors else None
    return Embedder(parts["lora"], lora, attention, temperature, description, parts["full"])


def _fill(path: Path, weights: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into weights of the same names and shapes."""
    if odd := sorted(set(weights) ^ set(tensors)):
        where = "the model has no" if odd[0] in tensors else "the file lacks"
        raise ArtifactError(f"{path}: was trained on another model: {where} {odd[0]}")
    for name, weight in weights.items():
        if weight.shape != tensors[name].shape:
            raise ArtifactError(
                f"{path}: was trained on another model: {name} is {tuple(tensors[name].shape)} there "
                f"and {tuple(weight.shape)} here"
            )
        weight.data.copy_(tensors[name])
