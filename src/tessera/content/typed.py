"""Small bidirectional transformers over typed fields, and how the vectors of some items are made with them.

A row is the start token, the tokens of the fields, and the patches of a picture; each has the vector of its token (or
what a linear map makes of the patch), of its position and of its field. The state of the start token is the item's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tessera.content.fields import PAD, FieldContent, Rows
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
        Raises:
            ValueError: heads do not divide the width of states.
        """
        super().__init__()
        if hidden % heads:
            raise ValueError(f"{heads} heads do not divide hidden {hidden}")
        self.content = (content,)  # in a tuple: it is no module
        self.batch_tokens, self.recompute, self.first_field = batch_tokens, recompute, first_field
        self.tokens = nn.Embedding(content.vocabulary, hidden, padding_idx=PAD)
        self.positions = nn.Embedding(content.longest + 1, hidden)
        self.fields = nn.Embedding(len(content.names) + 1, hidden)
        # what stands there outweighs where it stands, and biases begin at 0: else all items begin as one vector
        for table, scale in ((self.tokens, 0.1), (self.positions, 0.02), (self.fields, 0.02)):
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

    def read(self, rows: Rows) -> Tensor:
        """(rows, width) of what stands in rows."""
        states = self.tokens(rows.tokens) + self.fields(rows.fields)
        states = states + self.positions.weight[: states.shape[1]]
        mask = rows.tokens != PAD
        if self.patches is not None and rows.patches is not None and rows.pictured is not None:
            states = torch.cat([states, self.patches(rows.patches) + self.patch_positions], 1)
            seen = rows.pictured[:, None].expand(-1, len(self.patch_positions))
            mask = torch.cat([mask, seen], 1)
        mask = mask[:, None, None]
        for block in self.blocks:
            states = block(states, mask)
        vectors: Tensor = self.out(self.norm(states[:, 0]))
        return vectors

    def forward(self, items: Tensor) -> Tensor:
        """(n, width) of items (n,), each read as often as it stands there; 0 is an item that tells nothing."""
        wanted = items.cpu().numpy()
        device = self.out.weight.device
        if not len(wanted):
            return self.out.weight.new_zeros(0, self.out.out_features)
        (content,) = self.content
        lengths = content.lengths(wanted, self.first_field)
        parts, order = [], length_batches(lengths, self.batch_tokens)
        for numbers in order:
            rows = content.rows(wanted[numbers], self.first_field).to(device)
            if self.recompute and torch.is_grad_enabled():
                parts.append(checkpoint(self.read, rows, use_reentrant=False))
            else:
                parts.append(self.read(rows))
        back = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable")).to(device)
        return torch.cat(parts)[back]

    def count_tokens(self, items: Tensor) -> int:
        """Tokens and patches of items (n,), without padding."""
        return int(self.content[0].lengths(items.cpu().numpy(), self.first_field).sum())
