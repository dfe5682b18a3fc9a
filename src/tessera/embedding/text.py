"""Items read by a language model: pooled states of their texts, and the table of a model as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress, log
from tessera.language.prompts import Attributes, attribute_text, domain_sentence, item_attributes
from tessera.language.tokens import Frame, length_batches, pad_rows, plain_frame, tokenize
from tessera.settings.embedding import TextTable
from tessera.settings.language import ItemPrompt

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

Items = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Encode = Callable[[Tensor, Tensor], Tensor]
"""Token ids and mask, both (batch, length), to vectors (batch, width)."""


def token_positions(mask: Tensor) -> Tensor:
    """(batch, length) number of tokens before each."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def read_states(model: LanguageModel, ids: Tensor, mask: Tensor, layer: int = -1) -> Tensor:
    """(batch, length, width) states of a layer; -1 the last, after its norm, 0 the token embeddings.

    Raises:
        ValueError: the model has no such layer.
    """
    inputs = {"attention_mask": mask}
    if model.kind == "encoder":
        inputs |= {"input_ids": ids}
    else:
        inputs |= {"inputs_embeds": model.embed(ids), "position_ids": token_positions(mask)}
    more = {} if model.kind == "encoder" else {"use_cache": False}
    if layer == -1:
        last: Tensor = model.tower(**inputs, **more).last_hidden_state
        return last
    states = model.tower(**inputs, **more, output_hidden_states=True).hidden_states
    if not -len(states) <= layer < len(states):
        raise ValueError(f"layer: {layer} is none of the model's; it has 0 (embeddings) to {len(states) - 1}")
    chosen: Tensor = states[layer]
    return chosen


def pool(states: Tensor, mask: Tensor, pooling: Literal["mean", "last"]) -> Tensor:
    """(batch, width) mean over tokens, or the state of the last one, in at least float32."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    if pooling == "last":
        place = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return wide[torch.arange(len(mask), device=mask.device), place]
    total: Tensor = torch.einsum("bnd,bn->bd", wide, mask.to(wide.dtype))
    return total / mask.sum(1, keepdim=True)


@torch.no_grad()
def embed_rows(
    rows: Sequence[Sequence[int]],
    encode: Encode,
    model: LanguageModel,
    batch_tokens: int,
    side: Literal["right", "left"] = "right",
) -> Vectors:
    """(rows, width) float32 vectors of token rows, encoded in batches of like length."""
    found: Vectors | None = None
    with Progress("items", len(rows), "items") as progress:
        for batch in length_batches(np.array([len(row) for row in rows]), batch_tokens):
            ids, mask = pad_rows([rows[index] for index in batch], model.pad_token, side)
            vectors = encode(ids.to(model.device), mask.to(model.device)).float().cpu().numpy()
            if found is None:
                found = np.empty((len(rows), vectors.shape[1]), np.float32)
            found[batch] = vectors
            progress.update(len(batch))
    assert found is not None
    return found


def told_items(
    catalogue: Path, prompt: ItemPrompt, captions: Mapping[str, Path]
) -> tuple[dict[int, Attributes], Items]:
    """Attributes by item, and the ids of items that have any, ascending.

    Raises:
        ValueError: no item has any text.
    """
    told = item_attributes(catalogue, prompt, captions)
    if not told:
        raise ValueError(f"{catalogue}: no item has any text to read; look at prompt.attributes and captions")
    return told, np.array(sorted(told), np.int64)


def item_rows(
    told: Mapping[int, Attributes], items: Items, frame: Frame, model: LanguageModel, most: int
) -> list[list[int]]:
    """Token rows of all attributes of each item; texts that are too long are cut, and counted in the log."""
    rows, cut = tokenize([attribute_text(told[item]) for item in items.tolist()], frame, model.tokenizer, most)
    if cut:
        log.info("%s of %s texts are cut to %d tokens", f"{cut:,}", f"{len(rows):,}", most)
    return rows


def embed_text(
    table: TextTable, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, captions: Mapping[str, Path]
) -> tuple[Items, Vectors]:
    """The table of a model as it is.

    Returns:
        (n,) ids of the items that have any text, ascending, and (n, width) pooled states.
    Raises:
        ValueError: no item has any text, or the model has no such layer.
    """
    told, items = told_items(catalogue, prompt, captions)
    before = f"{table.instruction}\n" if table.instruction else ""
    frame = plain_frame(model, f"{before}{domain_sentence(prompt.domain)}\n")
    rows = item_rows(told, items, frame, model, min(table.max_tokens, model.context))
    model.full.eval()

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        return pool(read_states(model, ids, mask, table.layer), mask, table.pooling)

    return items, embed_rows(rows, encode, model, table.batch_tokens)
