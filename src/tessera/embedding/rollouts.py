"""Many thoughts about one text: the language model reads only what follows the text, all rollouts in one row.

The rollouts of a text stand one after the other behind its keys and values. Each sees the text and itself, at the
positions that it would have alone, so its states are those of a pass of its own; the text's keys and values are neither
read again nor copied for every rollout.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from tessera.language.reasoning import LatentReasoner, Prefix
from tessera.language.states import pool_with_tail, token_states


def tail_states(reasoner: LatentReasoner, prefix: Prefix, thoughts: Tensor, end: bool = True) -> Tensor:
    """States at the thoughts and the end token of every rollout.

    Args:
        reasoner: the language model.
        prefix: of `batch` texts.
        thoughts: (batch, group, thoughts, width).
        end: whether the end token follows.
    Returns:
        (batch, group, thoughts + 1, width), without `end` (batch, group, thoughts, width).
    """
    model = reasoner.model
    batch, group = thoughts.shape[:2]
    device = thoughts.device
    inputs = thoughts.to(prefix.states.dtype)
    if end:
        token = model.embed(torch.full((batch, group, 1), model.end_token, device=device))
        inputs = torch.cat([inputs.to(token.dtype), token], dim=2)
    tail = inputs.shape[2]
    kind = reasoner.tower.config._attn_implementation  # type: ignore[union-attr]
    if kind not in ("sdpa", "eager"):  # kernels that know no mask but a length
        prefix, inputs, group = prefix.repeat(group), inputs.flatten(0, 1)[:, None], 1
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix.cache):
        cache.update(keys, values, layer)
    rows = len(inputs)
    positions = prefix.lengths[:, None] + torch.arange(tail, device=device).repeat(group)
    if group == 1:
        mask = torch.cat([prefix.mask, prefix.mask.new_ones(rows, tail)], dim=1)
    else:
        mask = _group_mask(prefix.mask, group, tail)
        if kind == "eager":  # adds its mask to the scores
            mask = torch.zeros(mask.shape, dtype=inputs.dtype, device=device).masked_fill(
                ~mask, torch.finfo(inputs.dtype).min
            )
    output = reasoner.tower(
        inputs_embeds=inputs.flatten(1, 2),
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    states: Tensor = output.last_hidden_state
    return states.reshape(batch, -1, tail, states.shape[-1])


def _group_mask(mask: Tensor, group: int, tail: int) -> Tensor:
    """(batch, 1, group x tail, length + group x tail): who sees whom."""
    causal = torch.ones(tail, tail, dtype=torch.bool, device=mask.device).tril()
    own = torch.kron(torch.eye(group, dtype=torch.bool, device=mask.device), causal)
    text = mask.bool()[:, None].expand(-1, group * tail, -1)
    return torch.cat([text, own.expand(len(mask), -1, -1)], dim=2)[:, None]


def embeddings(reasoner: LatentReasoner, prefix: Prefix, thoughts: Tensor, end: bool = True) -> Tensor:
    """(batch, group, width) of thoughts (batch, group, thoughts, width), in at least float32; `end` as above.

    An encoder reads the text again for every rollout.
    """
    if reasoner.model.kind == "encoder":
        read = prefix if thoughts.shape[1] == 1 else prefix.repeat(thoughts.shape[1])
        return reasoner.finish(read, thoughts.flatten(0, 1)).reshape(*thoughts.shape[:2], -1)
    ended = reasoner.with_end(thoughts.flatten(0, 1))
    inputs = ended.view(*thoughts.shape[:2], *ended.shape[1:])
    states = token_states(
        tail_states(reasoner, prefix, thoughts, end), inputs if end else thoughts, reasoner.settings.states
    )
    return pool_with_tail(prefix.total[:, None], prefix.lengths[:, None, None], states, reasoner.settings.pooling)
