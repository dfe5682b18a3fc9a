"""Pooled states of a multimodal model that is asked about an item: DMESR's semantics without generated text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress, log
from tessera.artifacts.models import read_arrays, write_tensors
from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.text import Items, Vectors
from tessera.language.questions import Question, picture_inputs
from tessera.language.shown import ShownCatalogue
from tessera.language.states import pool, read_states
from tessera.language.tokens import pad_rows
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.hidden import HiddenTable
from tessera.training.shards import Shards, groups

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel
    from tessera.language.questions import Pixels


class _Shard(NamedTuple):
    """Rows of some items."""

    items: Items
    """(n,) those that could be shown, ascending."""
    vectors: Vectors
    """(n, width)."""
    broken: int
    """How many pictures cannot be read."""


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
        ValueError: no picture can be read, or a shard is damaged.
    """
    question = Question(model, table.source, prompt.domain, table.instruction)
    shown = ShownCatalogue(question, prompt, catalogue, table.max_pixels)
    model.full.eval()
    shards = Shards(state, _save, partial(_load, model.width), ".safetensors", "this table")
    made: list[_Shard] = []
    with Progress("items", len(shown.items), "items") as progress:
        for chosen, shard in shards.work(
            shown.items, table.shard, table.batch, lambda some: _embed(table, shown, some)
        ):
            made.append(shard)
            progress.update(len(chosen))
    if broken := sum(shard.broken for shard in made):
        log.info("%s pictures cannot be read; their items have no row", f"{broken:,}")
    items = np.concatenate([shard.items for shard in made])
    if not len(items):
        raise ValueError(f"{catalogue}: no item could be shown by {table.source}: every picture is broken")
    return items, np.concatenate([shard.vectors for shard in made])


def _embed(table: HiddenTable, shown: ShownCatalogue, items: Sequence[int]) -> _Shard:
    """One shard."""
    asked: list[int] = []
    vectors = np.empty((len(items), shown.question.model.width), np.float32)
    broken = 0
    for group in groups(items, table.batch):
        seen, batches, _ = shown.ask(group, table.batch, room=1)
        place = {item: len(asked) + number for number, item in enumerate(seen.asked)}
        for batch in batches:
            vectors[[place[item] for item in batch.items]] = _states(table, shown.question, batch.rows, batch.pixels)
        asked += seen.asked
        broken += len(seen.broken)
    return _Shard(np.array(asked, np.int64), vectors[: len(asked)], broken)


def _save(path: Path, shard: _Shard) -> None:
    arrays = {"items": shard.items, "vectors": shard.vectors, "broken": np.array([shard.broken])}
    write_tensors(path, {name: torch.from_numpy(value) for name, value in arrays.items()})


def _load(width: int, path: Path, items: Sequence[int]) -> _Shard:
    arrays = read_arrays(path)
    kept, vectors, (broken,) = arrays["items"], arrays["vectors"], arrays["broken"]
    if vectors.shape != (len(kept), width) or not np.isin(kept, items).all():
        raise ValueError
    return _Shard(kept, vectors, int(broken))


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
        given = self.given
        return Rows(*embed_hidden(self.settings, given.prompt, given.model, given.catalogue, given.state))
