"""The pre-norm attention block that SASRec and BERT4Rec share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout
from tessera.training.attend import attend


class Block(nn.Module):
    """Multi-head attention and a feed-forward layer, each after a layer norm and around a residual.

    Dropout falls on what the two layers give, not on attention weights, so that fused attention kernels can run.
    """

    def __init__(self, dim: int, heads: int, inner_dim: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.causal = causal
        self.attention_norm = nn.LayerNorm(dim)
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)
        self.inner_norm = nn.LayerNorm(dim)
        self.inner = nn.Sequential(
            nn.Linear(dim, inner_dim), nn.GELU(), Dropout(dropout), nn.Linear(inner_dim, dim), Dropout(dropout)
        )

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def beside(self, normed: Tensor, attended: Tensor, positions: Tensor | None = None) -> Tensor:
        """What is added to the inputs: what attention gave, alone or with something that stands beside it.

        Args:
            normed: (batch, length, dim) what attention read.
            attended: (batch, length, dim), or (batch, dim) at one position of each row.
            positions: (batch,) that position.
        """
        return attended

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, length, dim) to the same.

        Args:
            x: inputs.
            mask: broadcast to (batch, heads, length, length): true where there is something to see, or numbers that
                are added to the attention logits.
        """
        normed = self.attention_norm(x)
        query, key, value = (self._heads(part) for part in self.project_in(normed).chunk(3, dim=2))
        seen = attend(query, key, value, mask, self.causal)
        x = x + self.dropout(self.beside(normed, self.project_out(seen.transpose(1, 2).flatten(2))))
        y: Tensor = x + self.inner(self.inner_norm(x))
        return y

    def last(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(batch, dim) what `forward` gives at one position of each row, without computing the others.

        Args:
            x: (batch, length, dim) inputs.
            positions: (batch,) the position wanted.
            mask: as in `forward`, for that position: broadcast to (batch, heads, 1, length).
        """
        rows = torch.arange(x.shape[0], device=x.device)
        normed = self.attention_norm(x)
        dim = x.shape[2]
        weight, bias = self.project_in.weight, self.project_in.bias
        key, value = (self._heads(part) for part in F.linear(normed, weight[dim:], bias[dim:]).chunk(2, dim=2))
        query = self._heads(F.linear(normed[rows, positions], weight[:dim], bias[:dim])[:, None])
        seen = attend(query, key, value, mask)
        attended = self.project_out(seen.transpose(1, 2).flatten(1))
        y = x[rows, positions] + self.dropout(self.beside(normed, attended, positions))
        out: Tensor = y + self.inner(self.inner_norm(y))
        return out


def initialise(module: nn.Module, std: float | None = None) -> None:
    """Weights of linear maps normal with `std` (None: Xavier uniform), embeddings normal with 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
