"""BERT4Rec: a bidirectional encoder trained on a Cloze task (Sun et al., CIKM 2019).

Some items are hidden and predicted from both sides (paper, section 3.6). In a share of the histories only the last
item is hidden, as it is when scoring; the published code reaches the same by appending such examples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block, initialise
from tessera.recommenders.backbones.base import Backbone, Examples, at_places
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.bert4rec import BERT4RecSettings


class BERT4Rec(Backbone):
    """Bidirectional self-attention over a history with hidden items."""

    overlap = 0

    def __init__(self, settings: BERT4RecSettings) -> None:
        super().__init__()
        self.dim = settings.dim
        # scoring appends the mask: one position less for items
        self.max_length = settings.max_length - 1
        self.mask_probability = settings.mask_probability
        self.last_only_probability = settings.last_only_probability
        self.heads = settings.heads
        self.distance_bias = settings.distance_bias
        self.mask = nn.Parameter(torch.randn(settings.dim) * 0.02)
        self.positions = nn.Embedding(settings.max_length, settings.dim)
        self.dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, settings.inner_dim, settings.dropout, causal=False)
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.dim)
        # the paper's projection before the item matrix (eq. 7)
        self.head = nn.Sequential(nn.Linear(settings.dim, settings.dim), nn.GELU(), nn.LayerNorm(settings.dim))
        # with the paper's small normal weights the attention of a hidden position takes several times as long to form
        initialise(self)

    @property
    def window(self) -> int:
        """Most items in one training window: scoring's mask position holds an item while training."""
        return self.max_length + 1

    def _start(self, histories: Tensor, hidden: Tensor, vectors: Tensor) -> Tensor:
        inputs = F.embedding(histories, vectors)
        inputs = torch.where(hidden[..., None], self.mask.to(inputs.dtype), inputs)
        inputs = self.fused(inputs, (histories > 0) | hidden)
        x: Tensor = self.dropout(inputs + self._positions(histories, hidden))
        return x

    def _positions(self, histories: Tensor, hidden: Tensor) -> Tensor:
        """Position vectors counted from the end: the place to predict when scoring is always number 0."""
        lengths = ((histories > 0) | hidden).sum(1, keepdim=True)
        columns = torch.arange(histories.shape[1], device=histories.device)
        vectors: Tensor = self.positions((lengths - 1 - columns).clamp(min=0))
        return vectors

    def _attention(self, visible: Tensor, queries: Tensor) -> Tensor:
        """What is added to attention logits, (batch, heads, queries, length): nothing for hidden padding.

        Near items count more, in the first head most: slopes 1, 1/4, 1/16, ... over the distance, as in ALiBi (Press
        et al., ICLR 2022) but to both sides. Without it a hidden position has to find its neighbours by chance, which
        small data sets do not let it.

        Args:
            visible: (batch, length) true where there is something to see.
            queries: (batch or 1, queries) positions that look.
        """
        if not self.distance_bias:
            return visible[:, None, None]
        slopes = 0.25 ** torch.arange(self.heads, device=visible.device)
        distance = (queries[:, :, None] - torch.arange(visible.shape[1], device=visible.device)).abs()
        bias = -slopes[:, None, None] * distance[:, None]
        return bias.masked_fill(~visible[:, None, None], -torch.inf)

    def draw(self, histories: Tensor) -> Tensor:
        """(batch, length) true where an item is hidden: at least one a history."""
        real = histories > 0
        lengths = real.sum(1)
        draws = torch.rand(histories.shape, device=histories.device)
        hidden = (draws < self.mask_probability) & real
        rows = torch.arange(len(histories), device=histories.device)
        last = torch.zeros_like(real)
        last[rows, lengths - 1] = True
        last_only = torch.rand(len(histories), 1, device=histories.device) < self.last_only_probability
        hidden = torch.where(last_only, last, hidden)
        # a history with nothing hidden would teach nothing
        fallback = draws.masked_fill(~real, 2.0).argmin(1)
        hidden[rows, fallback] |= ~hidden.any(1)
        return hidden

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """The hidden items are predicted from the rest of their history."""
        hidden = self.draw(histories) if drawn is None else drawn
        x = self._start(histories, hidden, vectors)
        visible = self._attention(histories > 0, torch.arange(histories.shape[1], device=histories.device)[None])
        for block in self.blocks:
            x = block(x, visible)
        positions = hidden.flatten().nonzero().squeeze(1)
        states = self.head(self.norm(at_places(x, positions)))
        return Examples(states, histories.flatten()[positions], positions // histories.shape[1])

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state of a mask put after the last item."""
        rows = torch.arange(histories.shape[0], device=histories.device)
        histories = F.pad(histories, (0, 1))
        hidden = torch.zeros_like(histories, dtype=torch.bool)
        hidden[rows, lengths] = True
        x = self._start(histories, hidden, vectors)
        seen = (histories > 0) | hidden
        visible = self._attention(seen, torch.arange(histories.shape[1], device=histories.device)[None])
        for block in self.blocks[:-1]:
            x = block(x, visible)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        state: Tensor = self.head(self.norm(last.last(x, lengths, self._attention(seen, lengths[:, None]))))
        return state
