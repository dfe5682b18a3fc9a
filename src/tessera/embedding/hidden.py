"""Pooled states of a multimodal model that is asked about an item: DMESR's semantics without generated text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress, log
from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.text import Items, Vectors
from tessera.language.questions import Question, lengths, picture_inputs, read_pixels
from tessera.language.shown import ShownCatalogue
from tessera.language.states import pool, read_states
from tessera.language.tokens import pad_rows
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.hidden import HiddenTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel
    from tessera.language.questions import Pixels

_AT_ONCE = 512
"""Items whose pictures are open at a time."""


@torch.no_grad()
def embed_hidden(
    table: HiddenTable, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, captions: Mapping[str, Path]
) -> tuple[Items, Vectors]:
    """The states of the last layer over the question, picture included, up to where the answer would begin.

    Returns:
        (n,) ids of the items that have what the model is shown, ascending, and (n, width) pooled states.
    Raises:
        LanguageModelError: the model sees no pictures, or no item has what it is to be shown.
        ValueError: no picture can be read.
    """
    question = Question(model, table.source, prompt.domain, table.instruction)
    shown = ShownCatalogue(question, prompt, catalogue, table.max_pixels)
    model.full.eval()
    found: list[int] = []
    vectors: list[Vectors] = []
    broken = 0
    with Progress("items", len(shown.items), "items") as progress:
        for start in range(0, len(shown.items), _AT_ONCE):
            chosen = shown.items[start : start + _AT_ONCE]
            seen = shown.see(chosen)
            broken += len(seen.broken)
            pixels: list[Pixels | None] = [None] * len(seen.asked)
            if question.pictured:
                pixels[:] = read_pixels(model, [seen.pictures[item] for item in seen.asked])
            told = [shown.attributes.get(item, []) for item in seen.asked]
            rows, _ = question.rows(told, pixels, room=1)
            made = np.empty((len(rows), model.width), np.float32)
            order = np.argsort(-lengths(rows), kind="stable")
            for first in range(0, len(order), table.batch):
                batch = order[first : first + table.batch].tolist()
                made[batch] = _states(table, question, [rows[i] for i in batch], [pixels[i] for i in batch])
            found += seen.asked
            vectors.append(made)
            progress.update(len(chosen))
    if broken:
        log.info("%s pictures cannot be read; their items have no row", f"{broken:,}")
    if not found:
        raise ValueError(f"{catalogue}: no item could be shown by {table.source}: every picture is broken")
    return np.array(found, np.int64), np.concatenate(vectors)


def _states(table: HiddenTable, question: Question, rows: list[list[int]], pixels: list[Pixels | None]) -> Vectors:
    model = question.model
    ids, mask = pad_rows(rows, model.pad_token)
    ids, mask = ids.to(model.device), mask.to(model.device)
    if question.pictured:
        inputs = picture_inputs(ids, [seen for seen in pixels if seen is not None], question.image_token, model.device)
        reader: Any = model.full
        # the whole model without its head: it puts the picture in place and counts positions in two dimensions
        states: Tensor = reader.model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).last_hidden_state
    else:
        states = read_states(model, ids, mask)
    pooled: Vectors = pool(states, mask, table.pooling).float().cpu().numpy()
    return pooled


class HiddenRecipe(Recipe):
    """A model that is asked."""

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        return Rows(
            *embed_hidden(self.settings, self.given.prompt, self.given.model, self.given.catalogue, self.given.captions)
        )
