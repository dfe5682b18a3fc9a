"""The fine view of DMESR: every attribute of an item as a vector of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.embedding.recipe import Recipe, Rows
from tessera.embedding.text import Items, Vectors, check_states, embed_rows, told_items
from tessera.language.prompts import Attributes, attribute_text
from tessera.language.states import pool, read_states
from tessera.language.tokens import plain_frame, tokenize
from tessera.settings.language import ItemPrompt
from tessera.settings.recipes.attributes import AttributesTable

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


@torch.no_grad()
def embed_attributes(
    table: AttributesTable, prompt: ItemPrompt, model: LanguageModel, catalogue: Path, captions: Mapping[str, Path]
) -> tuple[Items, list[str], Vectors]:
    """A row an attribute; what many items share (`brand is Oxbow`) is read once.

    Returns:
        (n,) item of each row, ascending, (n,) attribute names, and (n, width) pooled states.
    Raises:
        ValueError: no item has any text, or the model has no such layer.
    """
    attributes, items = told_items(catalogue, prompt, captions)
    pairs = [(item, name, value) for item in items.tolist() for name, value in attributes[item][: table.most]]
    texts = [attribute_text([(name, value)]) for _, name, value in pairs]
    distinct = list(dict.fromkeys(texts))
    log.info("%d attributes of %d items, %d of them distinct", len(pairs), len(items), len(distinct))
    _tell_dropped([attributes[item] for item in items.tolist()], table.most, captions)
    most = min(table.max_tokens, model.context)
    rows, cut = tokenize(distinct, plain_frame(model), model.tokenizer, most)
    if cut:
        log.info("%s attributes are cut to %d tokens", f"{cut:,}", most)
    model.full.eval()

    def encode(ids: Tensor, mask: Tensor) -> Tensor:
        return pool(read_states(model, ids, mask, which=table.states), mask, table.pooling)

    vectors = embed_rows(rows, encode, model, table.batch_tokens)
    place = {text: number for number, text in enumerate(distinct)}
    chosen = np.array([place[text] for text in texts], np.int64)
    return np.array([item for item, _, _ in pairs], np.int64), [name for _, name, _ in pairs], vectors[chosen]


def _tell_dropped(attributes: Sequence[Attributes], most: int, captions: Iterable[str]) -> None:
    """Log what has no row for `most`: captions are told last, and go first."""
    dropped = [{name for name, _ in pairs[most:]} for pairs in attributes if len(pairs) > most]
    if not dropped:
        return
    count = sum(len(pairs) - most for pairs in attributes if len(pairs) > most)
    lacking = {name: sum(name in names for names in dropped) for name in captions}
    spoken = ", ".join(f"of {of:,} the caption {name}" for name, of in lacking.items() if of)
    log.warning(
        "items have %d attributes at most (`most`): %s of %s item%s left out%s",
        most, f"{count:,} more", f"{len(dropped):,}", "s are" if len(dropped) > 1 else " are",
        f" ({spoken})" if spoken else "",
    )  # fmt: skip


class AttributesRecipe(Recipe):
    """A row an attribute."""

    def check_model(self) -> None:
        """See `Recipe.check_model`."""
        check_states(self.settings, self.given.model)

    def rows(self) -> Rows:
        """See `Recipe.rows`."""
        items, names, vectors = embed_attributes(
            self.settings, self.given.prompt, self.given.model, self.given.catalogue, self.given.captions
        )
        return Rows(items, vectors, names)
