"""Vectors of some items from what a store holds of them: a language model whose weights may learn.

Only the items that are asked for are read, so a step costs what its batch costs and not what the catalogue does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.content.reading import picture_pieces, read_content
from tessera.content.store import ContentStore
from tessera.language.models import LanguageModel, LanguageModelError
from tessera.language.questions import Pixels, check_vision
from tessera.language.states import pool
from tessera.language.tokens import length_batches, pad_rows, plain_frame

Shown = Literal["text", "image", "both"]


class Encoder(nn.Module):
    """One vector an item, of its text, its picture, or both in one pass.

    Which weights learn is said by their `requires_grad` and by adapters that were put on the model before; `train` and
    `eval` reach the model. An item without anything to read is a learned vector.
    """

    def __init__(
        self,
        model: LanguageModel,
        store: ContentStore,
        shown: Shown = "text",
        attention: Literal["causal", "bidirectional"] = "causal",
        pooling: Literal["mean", "last"] = "mean",
        batch_tokens: int = 8192,
        recompute: bool = False,
    ) -> None:
        """
        Args:
            model: a decoder or a vision-language model, with or without adapters.
            store: made by the model's tokenizer and image processor.
            shown: what is read of an item; of `both`, what there is.
            attention: whether a token sees those after it: a causal model is turned bidirectional so.
            pooling: mean over all tokens, or the last one.
            batch_tokens: padded tokens that are read at once; the vectors do not depend on it but for rounding.
            recompute: keep no activations for the gradient, but make them again.
        Raises:
            LanguageModelError: pictures are shown to a model that sees none, or the model is an encoder.
            ValueError: pictures are to be read, and the store has none.
        """
        super().__init__()
        if model.kind == "encoder":
            raise LanguageModelError("content is read by decoders and vision-language models; this is an encoder")
        if shown != "text":
            check_vision(model, f"shown: {shown}")
            if store.made_from["max_pixels"] is None:
                raise ValueError(f"shown: {shown}, but the store was made without pictures (max_pixels)")
        self.full = model.full
        self.model, self.store, self.shown = (model,), store, shown  # in a tuple: it is no module of its own
        self.bidirectional = attention == "bidirectional"
        self.pooling, self.batch_tokens, self.recompute = pooling, batch_tokens, recompute
        self.absent = nn.Parameter(torch.randn(model.width, device=model.device) * 0.02)

    @property
    def language(self) -> LanguageModel:
        """The model that reads."""
        return self.model[0]

    def forward(self, items: Tensor) -> Tensor:
        """(n, width) vectors of items (n,), which may stand twice: each is read once.

        Raises:
            ValueError: an id is not of the catalogue.
        """
        distinct, place = torch.unique(items.cpu(), return_inverse=True)
        rows, pictures = self._rows(distinct.tolist())
        lengths = np.array([len(row) for row in rows], np.int64)
        read = np.flatnonzero(lengths)
        encoded = self.absent.expand(len(rows), -1)
        if len(read):
            batches = [read[batch] for batch in length_batches(lengths[read], self.batch_tokens)]
            vectors = torch.cat([self._vectors([rows[i] for i in b], [pictures[i] for i in b]) for b in batches])
            order = torch.from_numpy(np.concatenate(batches)).to(vectors.device)
            encoded = encoded.index_copy(0, order, vectors.to(encoded.dtype))
        return encoded[place.to(encoded.device)]

    def _rows(self, items: Sequence[int]) -> tuple[list[list[int]], list[Pixels | None]]:
        """Token rows with the picture's tokens before the text, and the pictures; a text loses words for its picture.

        Raises:
            ValueError: a picture has more tokens than the model reads.
        """
        content = self.store.rows(items)
        if self.shown == "text":
            return content.texts, [None] * len(content.texts)
        rows = []
        ends = len(plain_frame(self.language).after)
        for item, text, seen in zip(items, content.texts, content.pictures, strict=True):
            words, pieces = text if self.shown == "both" else [], self._pieces(seen)
            room = self.language.context - len(pieces)
            if room < (ends if words else 0):
                raise ValueError(
                    f"the picture of item {item} has {len(pieces)} tokens, of which the model reads "
                    f"{self.language.context}; make the store with fewer max_pixels"
                )
            if len(words) > room:  # the end of a text stays its end
                words = [*words[: room - ends], *words[len(words) - ends :]]
            rows.append([*pieces, *words])
        return rows, content.pictures

    def _pieces(self, seen: Pixels | None) -> list[int]:
        return [] if seen is None else picture_pieces(self.language, seen)

    def _vectors(self, rows: Sequence[Sequence[int]], pictures: Sequence[Pixels | None]) -> Tensor:
        ids, mask = (part.to(self.language.device) for part in pad_rows(rows, self.language.pad_token))
        read = partial(self._states, ids, mask, [seen for seen in pictures if seen is not None])
        states: Tensor = checkpoint(read, use_reentrant=False) if self.recompute and self.training else read()
        return pool(states, mask, self.pooling)

    def _states(self, ids: Tensor, mask: Tensor, pictures: Sequence[Pixels]) -> Tensor:
        return read_content(self.language, ids, mask, pictures, self.bidirectional).states
