"""Latent reasoning with an encoder, such as a sentence encoder: the thought is an extra token of a second pass.

An encoder's states see what follows, so nothing of the first pass can be kept for the second: the thought is made from
the states of the text, and the model reads the text again with the thought and a separator behind it. With several
thoughts it reads once more for each. Without any, an item is the pooled states of one pass, as in `scft` and `text`.

This is our reading: ReaEmb was published for decoders alone.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tessera.language.cache import Cache
from tessera.language.reasoning import LatentReasoner, Prefix
from tessera.language.states import at_last, pool_with_tail, token_positions, token_states, total


class EncoderReasoner(LatentReasoner):
    """An encoder that thinks before it sums a text up in one vector."""

    KINDS: ClassVar[tuple[str, ...]] = ("encoder",)

    def read(self, ids: Tensor, mask: Tensor) -> Prefix:
        """See `LatentReasoner.read`; texts are padded on the right, and nothing but their embeddings is kept."""
        inputs = self._embed(ids)
        if self.settings.thoughts:
            # what the thought is made from; the pooled states are those of the second pass
            with self._first_pass():
                states = self._see(inputs, mask)
        else:
            states = self._see(inputs, mask)
        summed = total(token_states(states, inputs, self.settings.states), mask)
        cache: Cache = ()
        return Prefix(states, mask, token_positions(mask), mask.sum(1), cache, summed, inputs)

    def think(self, prefix: Prefix) -> Tensor:
        """See `LatentReasoner.think`; for each thought but the first the model reads the text with those before it."""
        thoughts: list[Tensor] = []
        states, mask = prefix.states, prefix.mask
        for number in range(self.settings.thoughts):
            if number:
                inputs, mask = _behind(prefix, torch.stack(thoughts, 1))
                with self._first_pass():
                    states = self._see(inputs, mask)
            states, positions = self._free(states), token_positions(mask)
            thoughts.append(self._attend(at_last(states, mask), at_last(positions, mask), states, mask, positions))
        return torch.stack(thoughts, dim=1) if thoughts else self._no_thoughts(prefix.states)

    def finish(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """See `LatentReasoner.finish`; the end token is the separator. Without thoughts there is no second pass."""
        if not thoughts.shape[1]:
            if self.settings.pooling == "last":
                states = token_states(prefix.states, _inputs(prefix), self.settings.states)
                return at_last(states, prefix.mask).float()
            return prefix.total / prefix.lengths[:, None]
        tail = self.with_end(thoughts)
        inputs, mask = _behind(prefix, tail)
        states = token_states(self._see(inputs, mask), inputs, self.settings.states)
        text = torch.arange(mask.shape[1], device=mask.device) < prefix.lengths[:, None]
        index = _places(prefix, tail.shape[1])[..., None].expand(-1, -1, states.shape[-1])
        return pool_with_tail(
            total(states, text), prefix.lengths[:, None], states.gather(1, index), self.settings.pooling
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See `LatentReasoner.forward`."""
        prefix = self.read(ids, mask)
        return self.finish(prefix, self.think(prefix))

    def _see(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width) states of inputs, which stand at the positions that the model gives them."""
        states: Tensor = self.tower(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        return states


def _inputs(prefix: Prefix) -> Tensor:
    assert prefix.inputs is not None  # `EncoderReasoner.read` keeps them
    return prefix.inputs


def _places(prefix: Prefix, more: int) -> Tensor:
    """(batch, more) where further tokens stand: right behind each text, for encoders count positions in memory."""
    return prefix.lengths[:, None] + torch.arange(more, device=prefix.lengths.device)


def _behind(prefix: Prefix, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings (batch, length + more, width) of texts, a tail (batch, more, width) behind each; and their mask."""
    inputs, more = _inputs(prefix), tail.shape[1]
    room = torch.cat([inputs, inputs.new_zeros(len(inputs), more, inputs.shape[2])], dim=1)
    index = _places(prefix, more)[..., None].expand(-1, -1, inputs.shape[2])
    mask = torch.arange(room.shape[1], device=inputs.device) < (prefix.lengths + more)[:, None]
    return room.scatter(1, index, tail.to(room.dtype)), mask.long()
