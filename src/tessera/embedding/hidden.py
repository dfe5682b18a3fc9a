"""Pooled states of a multimodal model that is asked about an item: DMESR's semantics without generated text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.sharded import RowShard, name_broken, sharded_rows
from tessera.embedding.text import Items, Vectors, check_states
from tessera.language.questions import Question, picture_inputs
from tessera.language.shown import ShownCatalogue
from tessera.language.states import pool, read_states
from tessera.language.tokens import pad_rows
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.hidden import HiddenTable
from tessera.training.shards import groups

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel
    from tessera.language.questions import Pixels


@torch.no_grad()
def embed_hidden(
    table: HiddenTable, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, state: Path
) -> tuple[Items, Vectors]:
    """The states of the last layer over the question, picture included, up to where the answer would begin.

    A run that was killed goes on after the last complete shard and gives the same rows.

    Args:
        state: folder of the shards, named by everything that the rows depend on.
    Returns:
        (n,) ids of the items that have what the model is shown, ascending, and (n, width) pooled states.
    Raises:
        LanguageModelError: the model sees no pictures, or no item has what it is to be shown.
        ValueError: no picture can be read, no item has both a picture and a text, or a shard is damaged.
    """
    question = Question(model, table.source, prompt.domain, table.instruction)
    shown = ShownCatalogue(question, prompt, catalogue, table.max_pixels)
    model.full.eval()
    items, vectors = sharded_rows(
        shown.items, table, table.batch, model.width, state, lambda some: _embed(table, shown, some)
    )
    if not len(items):
        raise ValueError(f"{catalogue}: no item could be shown by {table.source}: {shown.nothing()}")
    return items, vectors


def _embed(table: HiddenTable, shown: ShownCatalogue, items: Sequence[int]) -> RowShard:
    """One shard."""
    asked: list[int] = []
    vectors = np.empty((len(items), shown.question.model.width), np.float32)
    broken: list[str] = []
    for group in groups(items, table.batch):
        seen, batches, _ = shown.ask(group, table.batch, room=1)
        place = {item: len(asked) + number for number, item in enumerate(seen.asked)}
        for batch in batches:
            vectors[[place[item] for item in batch.items]] = _states(table, shown.question, batch.rows, batch.pixels)
        asked += seen.asked
        broken += seen.broken
    name_broken(broken)
    return RowShard(np.array(asked, np.int64), vectors[: len(asked)], len(broken))


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

    def check_model(self) -> None:
        """See `Recipe.check_model`; what reads pictures is known."""
        if self.settings.source == "text":
            check_states(self.settings, self.given.model)

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        given = self.given
        return Rows(*embed_hidden(self.settings, given.prompt, given.model, given.catalogue, given.state))
