"""Low-rank adapters of a language model: put on, merged, told by name."""

from __future__ import annotations

from typing import Literal

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from tessera.settings.lora import LoRA

# peft names a layer's matrices after the adapter; files do without
_ADAPTER = ".default."
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def add_lora(tower: nn.Module, settings: LoRA, where: Literal["all", "feed_forward"] = "all") -> None:
    """Put adapters on linear layers of a tower, in place, in float32; only they require gradients afterwards.

    All are q, k, v, o, gate, up and down of Llama-like decoders, c_attn, c_proj and c_fc of GPT-2, and query, key,
    value and dense of BERT-like encoders. A pooler above the last layer is left alone: its output is not read.

    Args:
        tower: without adapters.
        settings: rank, scale and dropout.
        where: all of them, or only those of feed-forward layers (gate, up and down, as MME-SID).
    Raises:
        ValueError: there is no linear layer, or feed-forward layers were asked for and none is called gate_proj,
            up_proj or down_proj.
    """
    linear = [
        name
        for name, part in tower.named_modules()
        if isinstance(part, (nn.Linear, Conv1D)) and "pooler" not in name.split(".")
    ]
    targets = linear if where == "all" else [name for name in linear if name.rpartition(".")[2] in _FEED_FORWARD]
    if not linear:
        raise ValueError("LoRA adapts linear layers, and the model has none")
    if not targets:
        raise ValueError(
            f"LoRA on feed-forward layers looks for {', '.join(_FEED_FORWARD)}, which the model has not; its linear "
            f"layers are {sorted({name.rpartition('.')[2] for name in linear})}: adapt all of them"
        )
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
    )
    tower.requires_grad_(False)
    inject_adapter_in_model(config, tower)
    for parameter in tower.parameters():
        if parameter.requires_grad:
            # adapters take the dtype of the weights they adapt; steps of 1e-4 vanish in bfloat16
            parameter.data = parameter.data.float()


def merge_lora(tower: nn.Module) -> None:
    """Add the adapters to the weights and take them away, in place."""
    for name, part in list(tower.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(tower.get_submodule(parent), last, part.get_base_layer())


def drop_out(tower: nn.Module) -> None:
    """Let adapters drop out, as in training, and nothing else: the model itself is frozen."""
    tower.eval()
    for name, part in tower.named_modules():
        if "lora_dropout" in name.split("."):
            part.train()


class Adapters(nn.ParameterDict):
    """The matrices of adapters on a tower that is not part of the module: they decay as those of its layers would."""

    decays = True


def lora_weights(tower: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' matrices by name: `<module>.lora_A.weight` and `<module>.lora_B.weight`."""
    return {
        name.replace(_ADAPTER, "."): parameter
        for name, parameter in tower.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }
