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
    with torch.autocast(states.device.type, enabled=False):  # which would make the sum in half precision
        wide = widen(states)
        return torch.einsum("bnd,bn->bd", wide, mask.to(wide.dtype))


def pool(states: Tensor, mask: Tensor, pooling: Literal["mean", "last"]) -> Tensor:
    """(batch, width) mean over tokens, or the state of the last one, in at least float32."""
    if pooling == "last":
        return widen(at_last(states, mask))
    return total(states, mask) / mask.sum(1, keepdim=True)


def pool_with_tail(text: Tensor, count: Tensor, tail: Tensor, pooling: Literal["mean", "last", "balanced"]) -> Tensor:
    """One vector from a text and what follows it (thoughts and end token), in at least float32.

    Args:
        text: (..., width) sum of the states of the text.
        count: (..., 1) number of its tokens.
        tail: (..., tail, width) states after it.
        pooling: mean over all of them, the last one, or half the mean of the text and half that of the tail.
    """
    wide = widen(tail)
    if pooling == "last":
        return wide[..., -1, :]
    if pooling == "balanced":
        return (text / count + wide.mean(-2)) / 2
    return (text + wide.sum(-2)) / (count + tail.shape[-2])


def token_states(states: Tensor, inputs: Tensor, which: Literal["last", "first_last"]) -> Tensor:
    """What a recipe pools of each token: its last state, or that and its embedding beside it.

    The last layer of a small decoder knows what comes next better than what stands there. Taking first and last states
    together is an old cure (Su et al. 2021, "Whitening sentence representations", average them; side by side neither
    hides the other). A thought enters as an embedding, so it is then taken as it is too.

    Args:
        states: (..., width) of the last layer.
        inputs: (..., width) token embeddings, or thoughts; taken at a root mean square of one.
        which: last, or first_last.
    Returns:
        (..., width), or (..., 2 width).
    """
    if which == "last":
        return states
    size = inputs.float().square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()
    return torch.cat([states, (inputs / size).to(states.dtype)], dim=-1)


def read_states(
    model: LanguageModel,
    ids: Tensor,
    mask: Tensor,
    layer: int = -1,
    which: Literal["last", "first_last"] = "last",
) -> Tensor:
    """(batch, length, width) states of a layer; -1 the last, after its norm, 0 the token embeddings.

    Args:
        model: a decoder, an encoder, or a vision model, whose language part reads.
        ids: (batch, length) tokens; an encoder's are padded on the right.
        mask: (batch, length) 1 for tokens, 0 for padding.
        layer: counted like the model's own `hidden_states`.
        which: first_last puts the token embeddings beside them, (batch, length, 2 width); see `token_states`.
    Raises:
        ValueError: the model has no such layer.
    """
    inputs: dict[str, Any] = {"attention_mask": mask}
    embedded = model.embed(ids)
    if model.kind == "encoder":
        inputs |= {"input_ids": ids}
    else:
        inputs |= {"inputs_embeds": embedded, "position_ids": token_positions(mask), "use_cache": False}
    if layer == -1:
        return token_states(model.tower(**inputs).last_hidden_state, embedded, which)
    states = model.tower(**inputs, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise ValueError(f"layer: {layer} is none of the model's; it has 0 (embeddings) to {len(states) - 1}")
    return token_states(states[layer], embedded, which)
