"""Histories before a language model: instruction, item tokens, the beginning of a response, and the state at its end.

A causal model's states of instruction and items do not depend on what follows. So the instruction is read once a
step for all histories, and all prefixes of a history are read in one pass: after the items stand as many copies of the
response as there are prefixes, and the mask is a tree, where the copy of a prefix sees the instruction, the items of
the prefix and itself, at the positions that it would have alone. Values and gradients are those of one row a prefix, as
long as adapters drop nothing out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tessera.language.cache import Cache, filled, kept, spread
from tessera.language.states import token_positions

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel
    from tessera.language.tokens import Frame


class HistoryReader:
    """Runs the model; it has no weights of its own."""

    def __init__(self, model: LanguageModel, frame: Frame, readout: Literal["response", "item"]) -> None:
        """
        Args:
            model: a decoder, or a vision model, whose language part reads.
            frame: tokens before and after the items.
            readout: the state at the last token after the items, or at the last item.
        Raises:
            ValueError: an encoder, or a frame without what the readout needs.
        """
        if model.kind == "encoder":
            raise ValueError("histories are read by a causal model: an encoder's items see those after them")
        if not frame.before or (readout == "response" and not frame.after):
            raise ValueError("a history needs an instruction before it and, for readout response, a response after it")
        self.model = model
        self.before = frame.before
        self.after = frame.after if readout == "response" else ()

    def after_each(self, items: Tensor, empty: bool) -> Tensor:
        """States after every prefix of histories, in one pass.

        Args:
            items: (batch, length, width) item tokens, padded on the right; what stands after padding is meaningless.
            empty: also after none of the items.
        Returns:
            (batch, length, width), float32, after 1, 2, ... items; with `empty` (batch, length + 1, width), after none
            first.
        """
        begun, cache = self._begin()
        rows, length, _ = items.shape
        items = items.to(begun.dtype)
        prompt, response = len(self.before), len(self.after)
        device = items.device
        if not response:
            positions = (prompt + torch.arange(length, device=device)).expand(rows, -1)
            mask = torch.ones(rows, prompt + length, dtype=torch.long, device=device)
            states = self._continue(items, mask, positions, spread(cache, rows))
            states = torch.cat([begun[:, -1:].expand(rows, -1, -1), states], dim=1) if empty else states
            return states.float()
        prefixes = torch.arange(0 if empty else 1, length + 1, device=device)
        copies = self._embed(self.after).repeat(1, len(prefixes), 1).expand(rows, -1, -1)
        inputs = torch.cat([items, copies], dim=1)
        seen, positions = packed_tree(prompt, length, prefixes, response)
        # added to attention scores: a form that every implementation but flash attention takes
        mask = torch.zeros(seen.shape, dtype=items.dtype, device=device)
        mask.masked_fill_(~seen, torch.finfo(items.dtype).min)
        states = self._continue(inputs, mask.expand(rows, 1, -1, -1), positions.expand(rows, -1), spread(cache, rows))
        return states[:, length + response - 1 :: response].float()

    def after_all(self, items: Tensor, mask: Tensor) -> Tensor:
        """(batch, width) states, float32, after histories.

        Args:
            items: (batch, length, width) item tokens.
            mask: (batch, length) 1 for items, 0 for padding on the right; a history may be empty.
        """
        begun, cache = self._begin()
        rows = len(items)
        items = items.to(begun.dtype)
        seen = torch.cat([mask.new_ones(rows, len(self.before)), mask, mask.new_ones(rows, len(self.after))], dim=1)
        positions = token_positions(seen)[:, len(self.before) :]
        if self.after:
            items = torch.cat([items, self._embed(self.after).expand(rows, -1, -1)], dim=1)
        states = self._continue(items, seen, positions, spread(cache, rows))
        if self.after:
            return states[:, -1].float()
        lengths = mask.sum(1)
        last = states[torch.arange(rows, device=items.device), (lengths - 1).clamp(min=0)]
        return torch.where(lengths[:, None] > 0, last, begun[:, -1]).float()

    def _begin(self) -> tuple[Tensor, Cache]:
        """States (1, prompt, width) of the instruction, and its keys and values."""
        output = self.model.tower(inputs_embeds=self._embed(self.before), use_cache=True)
        return output.last_hidden_state, kept(output.past_key_values)

    def _continue(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        output = self.model.tower(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=filled(cache),
            use_cache=True,
        )
        states: Tensor = output.last_hidden_state
        return states

    def _embed(self, tokens: tuple[int, ...]) -> Tensor:
        return self.model.embed(torch.tensor([tokens], device=self.model.device))


def packed_tree(prompt: int, length: int, prefixes: Tensor, response: int) -> tuple[Tensor, Tensor]:
    """The mask and positions of items and the copies of the response behind them.

    Args:
        prompt: tokens that are read already.
        length: items.
        prefixes: (copies,) how many items each copy of the response comes after.
        response: tokens of the response.
    Returns:
        (m, prompt + m) bool, what each place sees, and (m,) positions, for m = length + copies x response places.
    """
    device = prefixes.device
    item = torch.arange(length, device=device)
    owner = prefixes.repeat_interleave(response)
    within = torch.arange(response, device=device).repeat(len(prefixes))
    seen_items = torch.cat([item + 1, owner])[:, None] > item
    copies = torch.zeros(length + len(owner), len(owner), dtype=torch.bool, device=device)
    copies[length:] = (owner[:, None] == owner) & (within[:, None] >= within)
    seen_prompt = torch.ones(len(copies), prompt, dtype=torch.bool, device=device)
    return torch.cat([seen_prompt, seen_items, copies], dim=1), torch.cat([prompt + item, prompt + owner + within])
