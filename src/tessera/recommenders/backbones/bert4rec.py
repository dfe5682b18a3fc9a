"""BERT4Rec: a bidirectional encoder trained on a Cloze task (Sun et al., CIKM 2019).

Some items are hidden and predicted from both sides (paper, section 3.6). In a share of the histories what is hidden is
the last item of a beginning of random length, as it is when scoring; the published code appends copies of whole
histories whose last item is hidden, the same target in every epoch.

A hidden position holds nothing, so nobody looks at it: see docs/systems/bert4rec.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block, initialise
from tessera.recommenders.backbones.base import Backbone, Examples, at_places
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.bert4rec import BERT4RecSettings

_ITSELF = 10.0
"""How far below an item at its side a hidden position stands for itself: it sees itself where there is nothing else."""
_OTHER_SIDE = 2.0
"""How much less an attention head sees of the side that is not its own."""
_SEEN, _HIDDEN, _CUT = 0, 1, 2
"""What is made of a place in training: read, to be predicted, or beyond the end of the history that is read."""


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
        self.head = (
            nn.Sequential(nn.Linear(settings.dim, settings.dim), nn.GELU(), nn.LayerNorm(settings.dim))
            if settings.projection
            else nn.Identity()
        )
        # with the paper's small normal weights the attention of a hidden position takes several times as long to form
        initialise(self)

    @property
    def window(self) -> int:
        """Most items in one training window: scoring's mask position holds an item while training."""
        return self.max_length + 1

    def _start(self, histories: Tensor, hidden: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors, scaled so that they are not drowned by the positions, plus position vectors."""
        inputs = torch.where(hidden[..., None], self.mask, F.embedding(histories, vectors) * self.dim**0.5)
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
        """What is added to attention logits, (batch, heads, queries, length): minus infinity for what is not seen.

        Near items count more, in the first heads most: slopes 1, 1/4, 1/16, ... over the distance, as in ALiBi (Press
        et al., ICLR 2022). Heads of the same slope come in pairs, one for what was before and one for what comes
        after. Without it a hidden position has to find its neighbours by chance, which small data sets do not let it.

        Args:
            visible: (batch, length) true where there is an item to see.
            queries: (batch or 1, queries) positions that look.
        """
        offsets = torch.arange(visible.shape[1], device=visible.device) - queries[:, :, None]
        bias = torch.zeros((), device=visible.device)
        if self.distance_bias:
            numbers = torch.arange(self.heads, device=visible.device)[:, None, None]
            ahead = offsets[:, None] * (1 - 2 * (numbers % 2)) > 0  # of the other side than the head's
            slopes = 0.25 ** (numbers // 2)
            bias = -slopes * offsets[:, None].abs() - _OTHER_SIDE * ahead
        itself = (offsets == 0)[:, None] & ~visible[:, None, None]
        nothing = torch.where(itself, -_ITSELF, -torch.inf)
        return torch.where(visible[:, None, None], bias, nothing)

    def draw(self, histories: Tensor) -> Tensor:
        """(batch, length) int64: which items are read, which are hidden (at least one a history), which are cut off."""
        real = histories > 0
        lengths = real.sum(1)
        columns = torch.arange(histories.shape[1], device=histories.device)
        draws = torch.rand(histories.shape, device=histories.device)
        hidden = (draws < self.mask_probability) & real
        rows = torch.arange(len(histories), device=histories.device)
        # a history with nothing hidden would teach nothing
        fallback = draws.masked_fill(~real, 2.0).argmin(1)
        hidden[rows, fallback] |= ~hidden.any(1)
        # the last item of a beginning: any but a history's first, of which nothing could tell
        last_only, end = torch.rand(2, len(histories), 1, device=histories.device)
        last = (1 + end * (lengths[:, None] - 1)).long().minimum(lengths[:, None] - 1)
        beginnings = _HIDDEN * (columns == last) + _CUT * (columns > last)
        return torch.where(last_only < self.last_only_probability, beginnings, _HIDDEN * hidden)

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """The hidden items are predicted from the rest of their history."""
        drawn = self.draw(histories) if drawn is None else drawn
        hidden = drawn == _HIDDEN
        read = histories.masked_fill(drawn == _CUT, 0)
        x = self._start(read, hidden, vectors)
        positions = torch.arange(histories.shape[1], device=histories.device)
        seen = self._attention((read > 0) & ~hidden, positions[None])
        for block in self.blocks:
            x = block(x, seen)
        chosen = hidden.flatten().nonzero().squeeze(1)
        states = self.head(self.norm(at_places(x, chosen)))
        return Examples(states, histories.flatten()[chosen], chosen // histories.shape[1])

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state of a mask put after the last item."""
        rows = torch.arange(histories.shape[0], device=histories.device)
        histories = F.pad(histories, (0, 1))
        hidden = torch.zeros_like(histories, dtype=torch.bool)
        hidden[rows, lengths] = True
        x = self._start(histories, hidden, vectors)
        visible = histories > 0
        seen = self._attention(visible, torch.arange(histories.shape[1], device=histories.device)[None])
        for block in self.blocks[:-1]:
            x = block(x, seen)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        state: Tensor = self.head(self.norm(last.last(x, lengths, self._attention(visible, lengths[:, None]))))
        return state
