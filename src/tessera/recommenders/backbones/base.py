"""What a backbone is: item vectors of histories in, hidden states out. Items are its item encoder's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.attention import Block


class Examples(NamedTuple):
    """What a training pass predicts from."""

    states: Tensor
    """(targets, dim) hidden states."""
    targets: Tensor
    """(targets,) item ids to predict."""
    owners: Tensor
    """(targets,) row of the batch that each target belongs to."""


class Backbone(nn.Module, ABC):
    """Encoder of histories. Histories are padded on the right with 0: real positions come first."""

    dim: int
    max_length: int
    overlap: int = 1
    """Items that two successive training windows share: a causal model predicts all items of a window but its first."""
    causal: bool = False
    """The state at a position has seen that position and those before it, and no other."""
    last_only: bool = False
    """A window has one target, its last item."""
    reads_times: bool = False
    """Whether `examples` and `encode` are given the times of histories; to others they never are."""
    repeats_after: int | None = None
    """Where `vectors` hold all items several times, each time in another state: after how many rows they begin again.
    An id is then that of an item plus a multiple of it; for who asks which items are the same. None of items in one
    state."""

    def __init__(self) -> None:
        super().__init__()
        self.fusion: nn.Module | None = None
        """What is made of the item vectors of a history before they are read; None takes them as they are. Views of
        items that read each other along the history enter here: (inputs, real) to inputs, as in `fused`."""

    def attends(self) -> list[Block]:
        """The last layers of attention, whose maps can be looked at; empty where there is none."""
        return []

    @property
    def window(self) -> int:
        """Most items in one training window."""
        return self.max_length + self.overlap

    def fused(self, inputs: Tensor, real: Tensor) -> Tensor:
        """Item vectors (batch, length, dim) as the backbone reads them; real (batch, length) is false for padding."""
        return inputs if self.fusion is None else self.fusion(inputs, real)

    def draw(self, histories: Tensor) -> Tensor | None:
        """What a training pass draws for histories before it reads them; None where nothing is."""
        return None

    @abstractmethod
    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """States that predict the targets of histories (batch, length); `vectors` (items + 1, dim).

        `drawn` is what `draw` gave; None draws anew. `times` (batch, length) are seconds, NaN where none is known.
        """

    @abstractmethod
    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state after the last item.

        Args:
            histories: (batch, length <= max_length).
            lengths: (batch,) >= 1.
            vectors: (items + 1, dim).
            times: (batch, length) seconds, NaN where none is known; None where nobody knows of any.
        """


class CausalBackbone(Backbone):
    """A backbone whose state at a position has seen that position and those before it."""

    causal = True

    @abstractmethod
    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states of input vectors (batch, length, dim)."""

    def timed(self, inputs: Tensor, lengths: Tensor, times: Tensor | None) -> Tensor:
        """`hidden` of a backbone that reads times (batch, length), where they are known."""
        return self.hidden(inputs, lengths)

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """Every item but the first is predicted from the state before it, which knows no time after its own item's."""
        inputs, targets = histories[:, :-1], histories[:, 1:]
        real = targets > 0
        earlier = None if times is None else times[:, :-1]
        states = self.timed(self.fused(F.embedding(inputs, vectors), inputs > 0), real.sum(1), earlier)
        positions = real.flatten().nonzero().squeeze(1)
        return Examples(at_places(states, positions), targets.flatten()[positions], positions // targets.shape[1])

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state after the last item."""
        states = self.timed(self.fused(F.embedding(histories, vectors), histories > 0), lengths, times)
        return states[torch.arange(states.shape[0], device=states.device), lengths - 1]


def at_places(states: Tensor, positions: Tensor) -> Tensor:
    """(places, dim) rows of states (batch, length, dim) at flat places; index_select has the fast gradient."""
    return states.flatten(0, 1).index_select(0, positions)
