"""Unit vectors of token rows with pictures, by a language model whose weights learn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.content.reading import Read, Replaced, read_content
from tessera.embedding.item_content import Row
from tessera.language.states import pool, token_states
from tessera.language.tokens import length_batches, pad_rows

if TYPE_CHECKING:
    from tessera.language.models import LanguageModel


class RowReader(nn.Module):
    """One unit vector a row."""

    def __init__(
        self,
        model: LanguageModel,
        bidirectional: bool,
        pooling: Literal["mean", "last"],
        batch_tokens: int,
        recompute: bool = False,
        which: Literal["last", "first_last"] = "last",
    ) -> None:
        """
        Args:
            model: a decoder or a vision-language model; which of its weights learn, their `requires_grad` says.
            bidirectional: whether a token sees those after it.
            pooling: mean over all tokens, or the last one.
            batch_tokens: padded tokens that are read at once.
            recompute: keep no activations for the gradient, but make them again.
            which: what is pooled of each token: its last state, or that and what the language part read beside it; see
                `token_states`.
        """
        super().__init__()
        self.full = model.full
        self.model = (model,)  # in a tuple: it is no module of its own
        self.bidirectional, self.pooling = bidirectional, pooling
        self.batch_tokens, self.recompute, self.which = batch_tokens, recompute, which

    @property
    def width(self) -> int:
        """Of the vectors."""
        return self.language.width * (1 if self.which == "last" else 2)

    @property
    def language(self) -> LanguageModel:
        """The model that reads."""
        return self.model[0]

    def batches(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Numbers of rows in batches of like length, all of which hold a picture or none does."""
        seen = np.array([row.pixels is not None for row in rows])
        lengths = np.array([len(row.ids) for row in rows], np.int64)
        parts = [np.flatnonzero(seen), np.flatnonzero(~seen)]
        return [part[batch] for part in parts for batch in length_batches(lengths[part], self.batch_tokens)]

    def pad(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Token ids and mask (rows, length), on the device of the model."""
        ids, mask = pad_rows([row.ids for row in rows], self.language.pad_token)
        return ids.to(self.language.device), mask.to(self.language.device)

    def read(self, rows: Sequence[Row], ids: Tensor, mask: Tensor, replaced: Replaced | None = None) -> Read:
        """The states of rows that were padded to `ids` and `mask`."""
        pictures = [row.pixels for row in rows if row.pixels is not None]
        reading = partial(read_content, self.language, ids, mask, pictures, self.bidirectional, replaced)
        if self.recompute and torch.is_grad_enabled():
            states: Read = checkpoint(reading, use_reentrant=False)
            return states
        return reading()

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """(rows, width) unit vectors, in at least float32."""
        vectors, batches = [], self.batches(rows)
        for batch in batches:
            some = [rows[number] for number in batch]
            ids, mask = self.pad(some)
            read = self.read(some, ids, mask)
            states = token_states(read.states, read.inputs, self.which)
            vectors.append(F.normalize(pool(states, mask, self.pooling), dim=-1))
        order = np.argsort(np.concatenate(batches), kind="stable")
        return torch.cat(vectors)[torch.from_numpy(order).to(self.language.device)]
