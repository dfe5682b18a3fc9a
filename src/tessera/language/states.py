"""States of a language model over padded texts: reading them, and summing them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


def token_positions(mask: Tensor) -> Tensor:
    """(batch, length) number of tokens before each, of a mask (batch, length); padding gets some number in range."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def at_last(values: Tensor, mask: Tensor) -> Tensor:
    """(batch, ...) the value at each row's last token, of values (batch, length, ...) padded on either side."""
    place = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
    return values[torch.arange(len(mask), device=mask.device), place]


def widen(states: Tensor) -> Tensor:
    """States in at least float32: a bfloat16 sum of hundreds of them loses digits."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def total(states: Tensor, mask: Tensor) -> Tensor:
    """(batch, width) sum over tokens of states (batch, length, width), in at least float32."""
    wide = widen(states)
    return torch.einsum("bnd,bn->bd", wide, mask.to(wide.dtype))


def pool(states: Tensor, mask: Tensor, pooling: Literal["mean", "last"]) -> Tensor:
    """(batch, width) mean over tokens, or the state of the last one, in at least float32."""
    if pooling == "last":
        return widen(at_last(states, mask))
    return total(states, mask) / mask.sum(1, keepdim=True)


def read_states(model: LanguageModel, ids: Tensor, mask: Tensor, layer: int = -1) -> Tensor:
    """(batch, length, width) states of a layer; -1 the last, after its norm, 0 the token embeddings.

    Args:
        model: a decoder, an encoder, or a vision model, whose language part reads.
        ids: (batch, length) tokens; an encoder's are padded on the right.
        mask: (batch, length) 1 for tokens, 0 for padding.
        layer: counted like the model's own `hidden_states`.
    Raises:
        ValueError: the model has no such layer.
    """
    inputs: dict[str, Any] = {"attention_mask": mask}
    if model.kind == "encoder":
        inputs |= {"input_ids": ids}
    else:
        inputs |= {"inputs_embeds": model.embed(ids), "position_ids": token_positions(mask), "use_cache": False}
    if layer == -1:
        last: Tensor = model.tower(**inputs).last_hidden_state
        return last
    states = model.tower(**inputs, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise ValueError(f"layer: {layer} is none of the model's; it has 0 (embeddings) to {len(states) - 1}")
    chosen: Tensor = states[layer]
    return chosen
