"""What a backbone is: item vectors of histories in, hidden states out. Items are its item encoder's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


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

    @property
    def window(self) -> int:
        """Most items in one training window."""
        return self.max_length + self.overlap

    @abstractmethod
    def examples(self, histories: Tensor, vectors: Tensor) -> Examples:
        """States that predict the targets of histories (batch, length); `vectors` (items + 1, dim)."""

    @abstractmethod
    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """(batch, dim) state after the last item; histories (batch, length <= max_length), lengths (batch,) >= 1."""


class CausalBackbone(Backbone):
    """A backbone whose state at a position has seen that position and those before it."""

    @abstractmethod
    def hidden(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(batch, length, dim) states of input vectors (batch, length, dim)."""

    def examples(self, histories: Tensor, vectors: Tensor) -> Examples:
        """Every item but the first is predicted from the state before it."""
        inputs, targets = histories[:, :-1], histories[:, 1:]
        real = targets > 0
        states = self.hidden(torch.nn.functional.embedding(inputs, vectors), real.sum(1))
        places = real.flatten().nonzero().squeeze(1)
        return Examples(at_places(states, places), targets.flatten()[places], places // targets.shape[1])

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """(batch, dim) state after the last item."""
        states = self.hidden(torch.nn.functional.embedding(histories, vectors), lengths)
        return states[torch.arange(len(states), device=states.device), lengths - 1]


def at_places(states: Tensor, places: Tensor) -> Tensor:
    """(places, dim) rows of states (batch, length, dim) at flat places; index_select has the fast gradient."""
    return states.flatten(0, 1).index_select(0, places)
