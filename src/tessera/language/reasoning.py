"""Latent reasoning (ReaEmb, section 2): thoughts that a language model reads as if they were tokens.

A thought is made by one attention layer on top of the model: the state of the last token asks the states of all tokens.
It is appended to the text as an input embedding, the end token follows, and the model reads both. The published code
runs the model over the whole text twice; here the text is read once and only [thoughts, end] run on its keys and
values. A causal model's states of the text do not see what follows, so values and gradients are the same, as long as
nothing is drawn differently in the two passes (LoRA dropout is). For the same reason the frame that all texts of a
batch begin with is read once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from tessera.artifacts.logs import log
from tessera.language.cache import Cache, filled, kept, spread
from tessera.language.states import at_last, pool_with_tail, token_positions, token_states, total
from tessera.settings.recipes.lrcl import LRCLTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

ROPE_BASE = 1000.0
LEAST_SAME = 8
"""Tokens that all texts of a batch must begin with before it pays to read them apart."""


class ReasoningAttention(nn.Module):
    """One head as wide as the model: a query state attends to states; no residual, norm or output projection."""

    frequencies: Tensor
    rope = "rotate_half"
    """Dimension i is paired with i + width/2, whose frequencies are the same: scores depend on relative positions."""

    def __init__(self, width: int, last_tokens: int | None = None) -> None:
        """
        Args:
            width: of the states; even.
            last_tokens: attend to so many of the last states only.
        Raises:
            ValueError: an odd width.
        """
        super().__init__()
        if width % 2:
            raise ValueError(f"the reasoning attention rotates pairs of dimensions: a width of {width} is odd")
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.last_tokens = last_tokens
        frequencies = ROPE_BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Rotary embedding of vectors (..., width) at positions (...)."""
        cos, sin = self.turns(vectors, positions)
        first, second = vectors.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def turns(self, vectors: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (..., width / 2) of the angles at positions (...), in the type of the vectors."""
        angles = positions[..., None] * self.frequencies
        return angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)

    def scores(self, query: Tensor, query_position: Tensor, states: Tensor, positions: Tensor) -> Tensor:
        """(batch, length) scaled products of the rotated query and keys."""
        asked = self.rotate(self.query(query), query_position)
        keys = self.rotate(self.key(states), positions)
        products: Tensor = torch.einsum("bd,bnd->bn", asked, keys)
        return products / math.sqrt(states.shape[-1])

    def forward(self, query: Tensor, query_position: Tensor, states: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """
        Args:
            query: (batch, width) state that asks.
            query_position: (batch,) where it stands.
            states: (batch, length, width) states that are asked.
            mask: (batch, length) 1 for tokens, 0 for padding.
            positions: (batch, length) where they stand.
        Returns:
            (batch, width) the thought.
        """
        dtype = self.query.weight.dtype
        query, states = query.to(dtype), states.to(dtype)
        seen = mask.bool()
        if self.last_tokens is not None:
            seen = seen & (mask.flip(1).cumsum(1).flip(1) <= self.last_tokens)
        scores = self.scores(query, query_position, states, positions)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=1)
        # weights sum to one, so the mean of the values is the value of the mean: one product instead of `length`
        mixed: Tensor = self.value(torch.einsum("bn,bnd->bd", weights.to(states.dtype), states))
        return mixed


@dataclass
class Prefix:
    """Texts that were read once: everything that thoughts and the end token need of them."""

    states: Tensor
    """(batch, length, width) after the model's final norm."""
    mask: Tensor
    """(batch, length) 1 for tokens, 0 for padding, on either side."""
    positions: Tensor
    """(batch, length) as the reasoning attention counts them."""
    lengths: Tensor
    """(batch,) tokens."""
    cache: Cache
    """Keys and values of the tokens."""
    total: Tensor
    """(batch, width) float32 sum of the states of tokens."""
    inputs: Tensor | None = None
    """(batch, length, width) embeddings of the tokens, where the text is read again with what follows it."""

    def select(self, rows: Tensor | Sequence[int]) -> Prefix:
        """The prefix of some rows, in that order; a row may be named more than once."""
        index = torch.as_tensor(rows, device=self.mask.device)
        return Prefix(
            self.states[index],
            self.mask[index],
            self.positions[index],
            self.lengths[index],
            tuple((keys[index], values[index]) for keys, values in self.cache),
            self.total[index],
            self.inputs[index] if self.inputs is not None else None,
        )

    def repeat(self, times: int) -> Prefix:
        """Every row `times` times, one after the other: a, a, b, b, ..."""
        return self.select(torch.arange(len(self.mask), device=self.mask.device).repeat_interleave(times))


class LatentReasoner(nn.Module):
    """A causal language model that thinks before it sums a text up in one vector."""

    KINDS: ClassVar[tuple[str, ...]] = ("decoder", "vision")
    """Kinds of models that reason so; encoders do as in `reasoning_encoder.py`."""

    def __init__(self, model: LanguageModel, attention: ReasoningAttention | None, settings: LRCLTable) -> None:
        """
        Args:
            model: a decoder, or a vision-language model's language part.
            attention: makes the thoughts; None where there are none.
            settings: thoughts, pooling, positions, and which passes carry gradients.
        Raises:
            ValueError: an encoder, whose states see what follows; thoughts without an attention.
        """
        super().__init__()
        if model.kind not in self.KINDS:
            raise ValueError(
                f"{type(self).__name__} reasons with models of kind {', '.join(self.KINDS)}, and this one is of kind "
                f"{model.kind}: in an encoder texts see the thoughts after them, in other models they do not"
            )
        if settings.thoughts and attention is None:
            raise ValueError(f"{settings.thoughts} thoughts need a reasoning attention")
        self.model = model
        self.tower = model.tower
        self.attention = attention
        self.settings = settings
        self._told = False

    # ------------------------------------------------------------ one pass over the text

    def read(self, ids: Tensor, mask: Tensor) -> Prefix:
        """Read texts without thoughts and end token.

        Args:
            ids: (batch, length) tokens, padded on either side.
            mask: (batch, length) 1 for tokens, 0 for padding.
        Raises:
            RuntimeError: the model did not fill its cache (gradient checkpointing empties it without a word).
        """
        inputs, positions = self._embed(ids), token_positions(mask)
        same = _same_beginning(ids, mask)
        if same < LEAST_SAME:
            states, cache = self._step(inputs, mask, positions, ())
        else:
            # the frame before every text is read once, not once a row
            begun, cache = self._step(inputs[:1, :same], mask[:1, :same], positions[:1, :same], ())
            rest, cache = self._step(inputs[:, same:], mask, positions[:, same:], spread(cache, len(ids)))
            states = torch.cat([begun.expand(len(ids), -1, -1), rest], dim=1)
        summed = total(token_states(states, inputs, self.settings.states), mask)
        return Prefix(states, mask, self._positions(mask), mask.sum(1), cache, summed)

    def think(self, prefix: Prefix) -> Tensor:
        """Thoughts (batch, thoughts, width), made one after the other.

        The first is asked by the state of the last token; thought j by the model's state at thought j - 1. Keys are the
        states of the text and those of earlier thoughts.
        """
        cache, thoughts = prefix.cache, []
        states, mask, positions = self._free(prefix.states), prefix.mask, prefix.positions
        query, position = at_last(states, mask), at_last(positions, mask)
        for number in range(self.settings.thoughts):
            thoughts.append(self._attend(query, position, states, mask, positions))
            if number + 1 == self.settings.thoughts:
                break
            with self._first_pass():
                said = thoughts[-1][:, None].to(self._end(states).dtype)
                seen, cache = self._continue(said, mask, prefix.lengths + number, cache)
            query, position = seen[:, 0], position + 1
            states = torch.cat([states, seen], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = torch.cat([positions, position[:, None]], dim=1)
        return torch.stack(thoughts, dim=1) if thoughts else self._no_thoughts(prefix.states)

    def finish(self, prefix: Prefix, thoughts: Tensor) -> Tensor:
        """Read thoughts (batch, thoughts, width) and the end token after the text; (batch, width) pooled, float32."""
        inputs = self.with_end(thoughts)
        states, _ = self._continue(inputs, prefix.mask, prefix.lengths, prefix.cache)
        states = token_states(states, inputs, self.settings.states)
        return pool_with_tail(prefix.total, prefix.lengths[:, None], states, self.settings.pooling)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, width) embeddings, float32, of texts without thoughts and end token (see `read`)."""
        if self._reads_again():
            return self.full_passes(ids, mask)
        prefix = self.read(ids, mask)
        return self.finish(prefix, self.think(prefix))

    # ------------------------------------------------------------ plain passes

    def full_passes(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, without a cache: a pass over everything so far for each thought, and one more to sum up."""
        inputs = self._embed(ids)
        read, true = mask, token_positions(mask)
        positions = self._positions(mask)
        position, after = at_last(positions, mask), mask.sum(1)
        for number in range(self.settings.thoughts):
            with self._first_pass():
                states = self._free(self._run(inputs, read, true))
            query = at_last(states, mask) if number == 0 else states[:, -1]
            thought = self._attend(query, position, states, read, positions)
            inputs = torch.cat([inputs, thought[:, None].to(inputs.dtype)], dim=1)
            read = torch.cat([read, read.new_ones(len(read), 1)], dim=1)
            true = torch.cat([true, (after + number)[:, None]], dim=1)
            position = position + 1
            positions = torch.cat([positions, position[:, None]], dim=1)
        inputs = torch.cat([inputs, self._end(inputs)], dim=1)
        read = torch.cat([read, read.new_ones(len(read), 1)], dim=1)
        true = torch.cat([true, (after + self.settings.thoughts)[:, None]], dim=1)
        states = token_states(self._run(inputs, read, true), inputs, self.settings.states)
        text, tail = states[:, : mask.shape[1]], states[:, mask.shape[1] :]
        return pool_with_tail(total(text, mask), mask.sum(1, keepdim=True), tail, self.settings.pooling)

    # ------------------------------------------------------------ parts

    def _embed(self, ids: Tensor) -> Tensor:
        return self.model.embed(ids)

    def _end(self, like: Tensor) -> Tensor:
        """(batch, 1, width) embedding of the end token."""
        end = torch.full((len(like), 1), self.model.end_token, dtype=torch.long, device=like.device)
        return self._embed(end)

    def with_end(self, thoughts: Tensor) -> Tensor:
        """(batch, thoughts + 1, width) thoughts, and the embedding of the end token after them."""
        end = self._end(thoughts)
        return torch.cat([thoughts.to(end.dtype), end], dim=1)

    def _no_thoughts(self, states: Tensor) -> Tensor:
        return states.new_zeros(len(states), 0, states.shape[-1])

    def _attend(self, query: Tensor, position: Tensor, states: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        assert self.attention is not None
        thought: Tensor = self.attention(query, position, states, mask, positions)
        return thought

    def _run(self, inputs: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        output = self.tower(inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False)
        states: Tensor = output.last_hidden_state
        return states

    def _continue(self, inputs: Tensor, mask: Tensor, start: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """States of further inputs (batch, more, width) after what the cache holds, and the cache that holds both.

        The new tokens stand after the padding in memory, and at position `start` for the model.
        """
        count = inputs.shape[1]
        more = torch.cat([mask, mask.new_ones(len(mask), count)], dim=1)
        return self._step(inputs, more, start[:, None] + torch.arange(count, device=start.device), cache)

    def _step(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """States of inputs (batch, more, width) after a cache, and the cache that holds both; `mask` covers both."""
        grown = filled(cache)
        output = self.tower(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, past_key_values=grown, use_cache=True
        )
        if grown.get_seq_length() != mask.shape[1]:
            raise RuntimeError(
                f"the model kept keys of {grown.get_seq_length()} tokens of {mask.shape[1]}; "
                "gradient checkpointing must be off, or the settings say two_pass"
            )
        return output.last_hidden_state, kept(grown)

    def _positions(self, mask: Tensor) -> Tensor:
        """(batch, length) as the reasoning attention counts: tokens."""
        return token_positions(mask)

    def _free(self, states: Tensor) -> Tensor:
        """States as the thought sees them: the paper lets no gradient into the pass that they come from."""
        return states if self.settings.through_first_pass else states.detach()

    def _first_pass(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.settings.through_first_pass else torch.no_grad()

    def _reads_again(self) -> bool:
        """Whether the model reads the text once more for every thought: it keeps no cache, or nothing to read again."""
        return self.settings.thoughts == 0 or self._checkpointing()

    def _checkpointing(self) -> bool:
        on = self.training and any(getattr(part, "gradient_checkpointing", False) for part in self.tower.modules())
        if on and not self._told:
            log.info("gradient checkpointing is on, which leaves no cache: the model reads every text twice")
            self._told = True
        return on


def _same_beginning(ids: Tensor, mask: Tensor) -> int:
    """How many tokens all rows begin with; each keeps one of its own."""
    if len(ids) == 1:
        return 0
    alike = ((ids == ids[:1]) & mask.bool()).all(0)
    return min(int(alike.cumprod(0).sum()), ids.shape[1] - 1)
