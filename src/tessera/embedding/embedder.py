"""A trained embedder: LoRA of a language model, the reasoning attention, the temperature; on disk and back.

`model.safetensors` holds `lora/<module>.lora_A.weight`, `attention/<name>` and `temperature`; `model.json` beside it
the recipe and its settings. The language model's own weights are not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tessera.artifacts.models import read_model, write_model
from tessera.artifacts.tables import ArtifactError
from tessera.language.lora import add_lora, lora_weights, merge_lora
from tessera.language.prompts import REQUEST, domain_sentence
from tessera.language.reasoning import ReasoningAttention
from tessera.language.tokens import Frame, chat_frame, plain_frame
from tessera.settings.language import ItemPrompt
from tessera.settings.lora import LoRA
from tessera.settings.recipes.lrcl import LRCLTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


def scft_frame(model: LanguageModel, prompt: ItemPrompt) -> Frame:
    """LLMEmb: the domain sentence, a newline, the attributes, the end token; no chat template."""
    return plain_frame(model, f"{domain_sentence(prompt.domain)}\n")


def reasoning_frame(model: LanguageModel, prompt: ItemPrompt, sentence: bool = True) -> Frame:
    """ReaEmb: a system message, and a user message with a request, the domain sentence and the attributes.

    Thoughts and the end token follow; `LatentReasoner` appends them. Without `sentence`, as the published code trains
    stage I, the domain sentence is left out.
    """
    told = f"{domain_sentence(prompt.domain)}\n" if sentence else ""
    return chat_frame(model, f"{REQUEST}\n{told}")


# ---------------------------------------------------------------- on disk


@dataclass
class Embedder:
    """A language model with what was trained in it."""

    model: LanguageModel
    attention: ReasoningAttention | None
    temperature: float | None
    adapters: dict[str, Tensor]
    """LoRA's matrices as they were read: a recipe that goes on from here writes them again."""
    lora: LoRA | None
    description: dict[str, Any]
    """What model.json says."""


def save_embedder(
    path: Path,
    adapters: Mapping[str, Tensor],
    lora: LoRA | None,
    attention: ReasoningAttention | None,
    temperature: Tensor | float | None,
    description: Mapping[str, Any],
) -> None:
    """Write `path` (model.safetensors) and model.json.

    Args:
        path: of the weights.
        adapters: LoRA's matrices, from `lora_weights` or an `Embedder`; empty where there are none.
        lora: their settings; None where there are none.
        attention: the reasoning attention, where there is one.
        temperature: of the loss, where it has one.
        description: JSON; `recipe` and `settings` at least.
    """
    tensors: dict[str, Tensor] = {f"lora/{name}": weight for name, weight in adapters.items()}
    told: dict[str, Any] = dict(description)
    if lora is not None:
        told["lora"] = lora.model_dump(mode="json")
    if attention is not None:
        tensors |= {f"attention/{name}": weight for name, weight in attention.state_dict().items()}
        told["attention"] = {"rope": attention.rope, "last_tokens": attention.last_tokens}
    if temperature is not None:
        tensors["temperature"] = torch.as_tensor(temperature).detach().float().reshape(1)
    write_model(path, tensors, told)


def make_attention(model: LanguageModel, settings: LRCLTable) -> ReasoningAttention | None:
    """A fresh reasoning attention on the model's device, or None where there are no thoughts."""
    if settings.thoughts == 0:
        return None
    return ReasoningAttention(model.width, settings.rope, settings.last_tokens).to(model.device)


def load_embedder(model: LanguageModel, path: Path, merge: bool) -> Embedder:
    """Put a trained embedder back into the language model that it was trained on; the model is changed.

    Args:
        model: freshly loaded, without adapters.
        path: of model.safetensors.
        merge: add the adapters to the weights, or leave them beside, frozen; weights of 8 or 4 bits take nothing in.
    Raises:
        ArtifactError: a file is missing, or the embedder does not belong to this model.
    """
    tensors, description = read_model(path)
    parts: dict[str, dict[str, Tensor]] = {"lora": {}, "attention": {}, "temperature": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    lora = LoRA.model_validate(description["lora"]) if "lora" in description else None
    if lora is not None:
        add_lora(model.tower, lora)
        _fill(path, lora_weights(model.tower), parts["lora"])
        if merge and not model.quantized:
            merge_lora(model.tower)
    model.tower.requires_grad_(False).eval()
    attention = None
    if "attention" in description:
        attention = ReasoningAttention(model.width, **description["attention"])
        _fill(path, dict(attention.named_parameters()), parts["attention"])
        attention.to(model.device)
    temperature = float(tensors["temperature"]) if "temperature" in tensors else None
    return Embedder(model, attention, temperature, parts["lora"], lora, description)


def _fill(path: Path, weights: Mapping[str, nn.Parameter], found: Mapping[str, Tensor]) -> None:
    """Copy tensors into weights of the same names and shapes."""
    if odd := sorted(set(weights) ^ set(found)):
        where = "the model has no" if odd[0] in found else "the file lacks"
        raise ArtifactError(f"{path}: was trained on another model: {where} {odd[0]}")
    for name, weight in weights.items():
        if weight.shape != found[name].shape:
            raise ArtifactError(
                f"{path}: was trained on another model: {name} is {tuple(found[name].shape)} there "
                f"and {tuple(weight.shape)} here"
            )
        weight.data.copy_(found[name])
