"""A backbone for items of two views: each view is read by a backbone of its own, or both by the same (LLM-ESR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block
from tessera.recommenders.backbones.base import Backbone, Examples


class TwoViews(Backbone):
    """The states of the two views side by side: with item vectors side by side too, their scores are added."""

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        """
        Args:
            backbones: one that reads each view, or two, of half the width of item vectors.
        """
        super().__init__()
        self.views = nn.ModuleList(backbones)
        self.first = (backbones[0],)  # in a tuple, so that it is not registered twice
        self.dim = 2 * backbones[0].dim
        self.max_length = backbones[0].max_length
        self.overlap = backbones[0].overlap
        self.last_only = backbones[0].last_only
        self.reads_times = backbones[0].reads_times

    def attends(self) -> list[Block]:
        """Those of both; a backbone that reads both views once, which it is asked twice."""
        return [block for backbone in dict.fromkeys(self.views) for block in backbone.attends()]  # type: ignore[operator]

    @property
    def window(self) -> int:
        """Most items in one training window."""
        return self.first[0].window

    def draw(self, histories: Tensor) -> Tensor | None:
        """What both views draw: the same items are hidden in either."""
        return self.first[0].draw(histories)

    def _halves(self, vectors: Tensor) -> list[tuple[Backbone, Tensor]]:
        read = [self.views[0], self.views[-1]]
        return list(zip(read, (half.contiguous() for half in vectors.chunk(2, dim=1)), strict=True))  # type: ignore[arg-type]

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """States (targets, dim) that predict the targets of histories (batch, length)."""
        drawn = self.draw(histories) if drawn is None else drawn
        examples = [backbone.examples(histories, half, drawn, times) for backbone, half in self._halves(vectors)]
        return Examples(torch.cat([part.states for part in examples], 1), examples[0].targets, examples[0].owners)

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state after the last item."""
        return torch.cat([view.encode(histories, lengths, half, times) for view, half in self._halves(vectors)], 1)
