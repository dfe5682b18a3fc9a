"""Items read by a language model: pooled states of their texts, and the table of a model as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress, log
from tessera.embedding.recipe import Recipe, Rows
from tessera.language.probe import Encode, check_alone
from tessera.language.prompts import Attributes, attribute_text, domain_sentence, item_attributes
from tessera.language.states import pool, read_states
from tessera.language.tokens import Frame, length_batches, pad_rows, plain_frame, tokenize
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.text import TextTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel

LOOK = "look at what is told of the items (prompt.attributes, captions) and at the model's tokenizer"
"""What to do where a model tells no item from another."""
LOOK_AT_PICTURES = f"look at the pictures and the model's image processor; of texts, {LOOK}"
"""The same of recipes that read pictures."""
Items = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@torch.no_grad()
def embed_rows(
    rows: Sequence[Sequence[int]],
    encode: Encode,
    model: LanguageModel,
    batch_tokens: int,
    side: Literal["right", "left"] = "right",
) -> Vectors:
    """(rows, width) float32 vectors of token rows, encoded in batches of like length."""
    embedded: Vectors | None = None
    with Progress("items", len(rows), "items") as progress:
        for batch in length_batches(np.array([len(row) for row in rows]), batch_tokens):
            ids, mask = pad_rows([rows[index] for index in batch], model.pad_token, side)
            vectors = encode(ids.to(model.device), mask.to(model.device)).float().cpu().numpy()
            if embedded is None:
                embedded = np.empty((len(rows), vectors.shape[1]), np.float32)
            embedded[batch] = vectors
            progress.update(len(batch))
    assert embedded is not None
    return embedded


def told_items(
    catalogue: Path, prompt: ItemPrompt, captions: Mapping[str, Path]
) -> tuple[dict[int, Attributes], Items]:
    """Attributes by item, and the ids of items that have any, ascending.

    Raises:
        ValueError: no item has any text.
    """
    attributes = item_attributes(catalogue, prompt, captions)
    if not attributes:
        raise ValueError(f"{catalogue}: no item has any text to read; look at prompt.attributes and captions")
    return attributes, np.array(sorted(attributes), np.int64)


def tells_anything(prompt: ItemPrompt, catalogue: Path) -> bool:
    """Whether there is a text of any item that nobody captioned."""
    return bool(item_attributes(catalogue, prompt))


def item_rows(
    attributes: Mapping[int, Attributes], items: Items, frame: Frame, model: LanguageModel, most: int
) -> list[list[int]]:
    """Token rows of all attributes of each item; texts that are too long are cut, and counted in the log."""
    rows, cut = tokenize([attribute_text(attributes[item]) for item in items.tolist()], frame, model.tokenizer, most)
    if cut:
        log.info("%s of %s texts are cut to %d tokens", f"{cut:,}", f"{len(rows):,}", most)
    return rows


def check_texts_differ(source: Path, rows: Iterable[Any], advice: str = LOOK) -> None:
    """Refuse what says the same of all items: its table would be refused, after the whole training.

    Args:
        source: what the items come from.
        rows: what is read of each item; no more of them than it takes to see two that differ.
        advice: what to do.
    Raises:
        ValueError: all are the same, and there are several.
    """
    rest = iter(rows)
    first, count = next(rest, None), 1
    for row in rest:
        if row != first:
            return
        count += 1
    if count > 1:
        raise ValueError(f"{source}: the same is read of all {count} items, which tells none from another; {advice}")


def embed_text(
    table: TextTable, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, captions: Mapping[str, Path]
) -> tuple[Items, Vectors]:
    """The table of a model as it is.

    Returns:
        (n,) ids of the items that have any text, ascending, and (n, width) pooled states.
    Raises:
        ValueError: no item has any text, or the model has no such layer.
    """
    if table.only_captions:
        prompt = prompt.model_copy(update={"attributes": []})
    attributes, items = told_items(catalogue, prompt, captions)
    before = f"{table.instruction}\n" if table.instruction else ""
    frame = plain_frame(model, f"{before}{domain_sentence(prompt.domain)}\n")
    rows = item_rows(attributes, items, frame, model, min(table.max_tokens, model.context))
    model.full.eval()

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        return pool(read_states(model, ids, mask, table.layer, table.states), mask, table.pooling)

    return items, embed_rows(rows, encode, model, table.batch_tokens)


def check_states(settings: Any, model: LanguageModel) -> None:
    """Refuse a model whose states of a text depend on the padding behind it; see `check_alone`.

    Args:
        settings: of the recipe that reads them: a `ReadText`.
        model: freshly loaded.
    Raises:
        LanguageModelError: it is such a model.
    """

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        return pool(read_states(model, ids, mask), mask, "mean")

    check_alone(model, encode, f"recipe {settings.recipe}", min(settings.max_tokens, model.context))


class TextRecipe(Recipe):
    """A model as it is."""

    def check_model(self) -> None:
        """See `Recipe.check_model`."""
        check_states(self.settings, self.given.model)

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        return Rows(
            *embed_text(self.settings, self.given.prompt, self.given.model, self.given.catalogue, self.given.captions)
        )
