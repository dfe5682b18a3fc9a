"""States of token rows with pictures in them, read one way or both ways by a language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tessera.language.models import LanguageModel
from tessera.language.questions import Pixels, picture_inputs, picture_positions
from tessera.language.states import token_positions


class Replaced(NamedTuple):
    """Tokens that are read as if another stood there."""

    where: Tensor
    """(batch, length) true at these."""
    vector: Tensor
    """(width,) what is read in place of their embeddings."""


class Read(NamedTuple):
    """What a model made of padded rows."""

    states: Tensor
    """(batch, length, width) after the last norm."""
    positions: Tensor
    """(batch, length), or (3, batch, length) where there are pictures."""
    inputs: Tensor
    """(batch, length, width) what the language part read: token embeddings, and the vision part's output."""


def picture_pieces(model: LanguageModel, seen: Pixels) -> list[int]:
    """Tokens that stand for a picture, between those that begin and end it."""
    config: Any = model.full.config
    processor: Any = model.image_processor
    pieces = [int(config.image_token_id)] * seen.tokens(int(processor.merge_size))
    return [int(config.vision_start_token_id), *pieces, int(config.vision_end_token_id)]


def both_ways(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, length, length) what is added to attention: every token sees all others, and no padding."""
    length = mask.shape[1]
    added = torch.zeros(len(mask), 1, length, length, dtype=dtype, device=mask.device)
    return added.masked_fill(mask[:, None, None, :] == 0, torch.finfo(dtype).min)


def read_content(
    model: LanguageModel,
    ids: Tensor,
    mask: Tensor,
    pictures: Sequence[Pixels],
    bidirectional: bool,
    replaced: Replaced | None = None,
) -> Read:
    """Read padded rows.

    Args:
        model: a decoder or a vision-language model.
        ids: (batch, length) padded at the right; a row has one picture or none.
        mask: (batch, length) 1 at tokens, 0 at padding.
        pictures: in row order.
        bidirectional: whether a token sees those after it.
        replaced: tokens that are hidden.
    """
    embedding: Any = model.full.get_input_embeddings()  # type: ignore[operator]
    seen = both_ways(mask, embedding.weight.dtype) if bidirectional else mask
    with _replacing(embedding, replaced):
        if not pictures:
            positions, embedded = token_positions(mask), model.embed(ids)
            output = model.tower(inputs_embeds=embedded, attention_mask=seen, position_ids=positions, use_cache=False)
            return Read(output.last_hidden_state, positions, embedded)
        config: Any = model.full.config
        inputs = picture_inputs(ids, pictures, int(config.image_token_id), model.device)
        merge = int(config.vision_config.spatial_merge_size)
        # from the mask of padding: the other has four dimensions
        positions = picture_positions(ids, mask, inputs["image_grid_thw"], int(config.image_token_id), merge)
        inside: Any = model.full.model
        with _inputs_of(model.tower) as read:
            output = inside(input_ids=ids, attention_mask=seen, position_ids=positions, use_cache=False, **inputs)
        return Read(output.last_hidden_state, positions, read[0])


@contextmanager
def _inputs_of(tower: nn.Module) -> Iterator[list[Tensor]]:
    """What the language part is given: pictures enter it inside of the whole model."""
    read: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        read.append(named["inputs_embeds"])

    hook = tower.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


@contextmanager
def _replacing(embedding: Any, replaced: Replaced | None) -> Iterator[None]:
    """Embeddings of some tokens are another vector, whatever way of the model asks for them."""
    if replaced is None:
        yield
        return

    def put(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.where(replaced.where[..., None], replaced.vector.to(output.dtype), output)

    hook = embedding.register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
