"""Small bidirectional transformers over typed fields, and how the vectors of some items are made with them.

A row is the start token, the tokens of the fields, and the patches of a picture; each has the vector of its token (or
what a linear map makes of the patch), of its position and of its field. The item's vector is made of the state of the
start token, or of the mean of all states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.content.fields import PAD, FieldContent, Rows
from tessera.content.mapped import pieces
from tessera.language.states import pool
from tessera.language.tokens import length_batches
from tessera.training.attend import attend


class Block(nn.Module):
    """A layer: attention, then a feed-forward network, each on normed states and added to them."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_network = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.project, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(rows, length, hidden) -> the same; mask (rows, 1, 1, length) is true where there is something."""
        rows, length, hidden = states.shape
        parts = self.project(self.before_attention(states)).view(rows, length, 3, self.heads, hidden // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = attend(queries, keys, values, mask, dropout=rate)
        states = states + F.dropout(self.out(mixed.transpose(1, 2).reshape(rows, length, hidden)), rate)
        widened = F.gelu(self.widen(self.before_network(states)))
        added: Tensor = states + F.dropout(self.narrow(widened), rate)
        return added


class Standardize(nn.Module):
    """Every column of some vectors gets mean 0 and variance 1 over their rows; those of training where it has ended.

    What all items have in common is taken away, and what tells them apart cannot shrink: else an encoder that learns
    faster than what reads it first does away with all differences, which are noise to a reader that has learned
    nothing.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, width) -> the same, in float32; one row has no variance and is measured by those before."""
        with torch.autocast(vectors.device.type, enabled=False):
            learning = self.training and len(vectors) > 1
            return F.batch_norm(vectors.float(), self.mean, self.variance, training=learning)


class TypedEncoder(nn.Module):
    """A bidirectional transformer over rows of a content."""

    def __init__(
        self,
        content: FieldContent,
        width: int,
        hidden: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        batch_tokens: int = 16384,
        recompute: bool = False,
        first_field: bool = False,
        pooling: Literal["start", "mean"] = "mean",
        standardized: bool = False,
    ) -> None:
        """
        Args:
            content: what is read.
            width: of the vectors that it gives.
            hidden: of its states.
            layers: how many.
            heads: of attention.
            dropout: in every layer.
            batch_tokens: most padded tokens that are read at once; vectors do not depend on it but for rounding.
            recompute: keep no activations for the gradient, but make them again, one batch of items after the other:
                memory then grows with `batch_tokens` and not with the number of items. The gradient is the same
                (GradCache, Gao et al., RepL4NLP 2021).
            first_field: read the first field alone.
            pooling: the state of the start token, or the mean of all.
            standardized: vectors are standardised over the items that are encoded together (`Standardize`).
        Raises:
            ValueError: heads do not divide the width of states.
        """
        super().__init__()
        if hidden % heads:
            raise ValueError(f"{heads} heads do not divide hidden {hidden}")
        self.content = (content,)  # in a tuple: it is no module
        self.batch_tokens, self.recompute, self.first_field = batch_tokens, recompute, first_field
        self.pooling = pooling
        self.tokens = nn.Embedding(content.vocabulary, hidden, padding_idx=PAD)
        self.positions = nn.Embedding(content.longest + 1, hidden)
        self.fields = nn.Embedding(len(content.names) + 1, hidden)
        # what stands there outweighs where it stands and the first steps of training, and biases begin at 0: else all
        # items begin as one vector, or soon are
        for table, scale in ((self.tokens, 1.0), (self.positions, 0.02), (self.fields, 0.02)):
            nn.init.normal_(table.weight, std=scale)
        nn.init.zeros_(self.tokens.weight[PAD])
        self.patches = None
        if content.patches is not None and not first_field:
            count, numbers = content.patches
            self.patches = nn.Linear(numbers, hidden)
            self.patch_positions = nn.Parameter(torch.randn(count, hidden) * 0.02)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        self.level = Standardize(width) if standardized else None

    def read(self, rows: Rows) -> Tensor:
        """(rows, width) of what stands in rows."""
        states = self.tokens(rows.tokens) + self.fields(rows.fields)
        states = states + self.positions.weight[: states.shape[1]]
        mask = rows.tokens != PAD
        if self.patches is not None and rows.patches is not None and rows.pictured is not None:
            states = torch.cat([states, self.patches(rows.patches) + self.patch_positions], 1)
            seen = rows.pictured[:, None].expand(-1, len(self.patch_positions))
            mask = torch.cat([mask, seen], 1)
        for block in self.blocks:
            states = block(states, mask[:, None, None])
        state = states[:, 0] if self.pooling == "start" else pool(states, mask, "mean")
        vectors: Tensor = self.out(self.norm(state))
        return vectors

    def forward(self, items: Tensor) -> Tensor:
        """(n, width) of items (n,), each read as often as it stands there; 0 is an item that tells nothing."""
        return self.levelled(self.encode(items))

    def levelled(self, vectors: Tensor) -> Tensor:
        """Vectors (n, width) that `encode` gave, standardised where that is asked for."""
        return vectors if self.level is None else self.level(vectors)

    @torch.no_grad()
    def settle(self, vectors: Tensor, counted: Tensor) -> None:
        """Measure from now on by vectors (n, width) that `encode` gave, those that count (n,) alone.

        Running statistics lag behind what learns. The table is gone through in pieces, and summed in float64.
        """
        count = int(counted.sum())
        if self.level is None or count < 2:
            return

        def wanted() -> Iterator[Tensor]:
            return (vectors[some][counted[some]].double() for some in pieces(len(vectors)))

        mean = sum((part.sum(0) for part in wanted()), torch.zeros(())) / count
        squares = sum(((part - mean).square().sum(0) for part in wanted()), torch.zeros(()))
        self.level.mean.copy_(mean)
        self.level.variance.copy_(squares / count)

    def encode(self, items: Tensor) -> Tensor:
        """(n, width) of items (n,) as the transformer says them; no item's depends on another's."""
        wanted = items.cpu().numpy()
        device = self.out.weight.device
        if not len(wanted):
            # joined to the weights: where others encode some, their gradients are waited for
            nothing: Tensor = self.out(self.out.weight.new_zeros(0, self.out.in_features))
            return nothing
        (content,) = self.content
        parts, order = [], self._batches(wanted)
        for numbers in order:
            rows = content.rows(wanted[numbers], self.first_field).to(device)
            if self.recompute and torch.is_grad_enabled():
                parts.append(checkpoint(self.read, rows, use_reentrant=False))
            else:
                parts.append(self.read(rows))
        back = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable")).to(device)
        return torch.cat(parts)[back]

    def _batches(self, items: np.ndarray) -> list[np.ndarray]:
        """Places in items (n,), batch by batch: a picture beside items without one would be padding of all of them."""
        (content,) = self.content
        lengths, pictured = content.lengths(items, self.first_field), content.pictured(items)
        alike = [pictured, ~pictured] if self.patches is not None else [np.ones(len(items), bool)]
        groups = (np.flatnonzero(group) for group in alike)
        return [group[batch] for group in groups for batch in length_batches(lengths[group], self.batch_tokens)]

    def count_tokens(self, items: Tensor) -> int:
        """Tokens and patches of items (n,), without padding."""
        return int(self.content[0].lengths(items.cpu().numpy(), self.first_field).sum())
