"""SR-GNN: the graph of a session, with gated propagation and soft attention on the last item (Wu et al., AAAI 2019).

The items of a history are the nodes, each once; each step from one item to the next is an edge. Nodes hear of those
before and after them, then the history is read off again: where it ends, and what of it matters for that.

A node hears of items that came later, so a graph of a whole window would tell an item what it has to predict. Each
target is therefore predicted from a graph of what stands before it and nothing else, as a history is scored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.base import Backbone, Examples
from tessera.recommenders.backbones.dropout import Dropout
from tessera.settings.backbones.srgnn import SRGNNSettings


class SRGNN(Backbone):
    """A gated graph network over the items of a history."""

    def __init__(self, settings: SRGNNSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.dim, self.max_length, self.steps = dim, settings.max_length, settings.steps
        self.last_only = settings.targets == "last"
        self.dropout = Dropout(settings.dropout)
        self.norm_in = nn.LayerNorm(dim)
        self.incoming, self.outgoing = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.of_last, self.of_item = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.attention = nn.Linear(dim, 1, bias=False)
        self.merge = nn.Linear(2 * dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def examples(
        self, histories: Tensor, vectors: Tensor, drawn: Tensor | None = None, times: Tensor | None = None
    ) -> Examples:
        """Every item but the first is predicted from the graph of those before it; with `targets: last`, only the last.

        One pass for each length of what stands before: no graph is padded with items of its own future.
        """
        lengths = (histories > 0).sum(1)
        states, targets, owners = [], [], []
        for length in range(1, max(2, histories.shape[1])):
            wanted = lengths == length + 1 if self.last_only else lengths > length
            rows = wanted.nonzero().squeeze(1)
            before = histories[rows, :length]
            states.append(self.encode(before, torch.full_like(rows, length), vectors))
            targets.append(histories[rows, length])
            owners.append(rows)
        owner = torch.cat(owners)
        order = owner.argsort(stable=True)  # as other backbones: a row's targets side by side, in their order
        return Examples(torch.cat(states)[order], torch.cat(targets)[order], owner[order])

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor, times: Tensor | None = None) -> Tensor:
        """(batch, dim) state after the last item."""
        real = histories > 0
        inputs = self.dropout(self.norm_in(self.fused(F.embedding(histories, vectors), real)))
        same = histories if self.repeats_after is None else histories % self.repeats_after
        node_of = nodes(same).to(inputs.dtype)
        states = self._propagated(inputs, node_of)
        read = node_of @ states
        last = read[torch.arange(read.shape[0], device=read.device), lengths - 1]
        weights = self.attention(torch.sigmoid(self.of_last(last)[:, None] + self.of_item(read)))
        whole = (weights * real[..., None] * read).sum(1)
        state: Tensor = self.norm(self.dropout(self.merge(torch.cat([last, whole], 1))))
        return state

    def _propagated(self, states: Tensor, node_of: Tensor) -> Tensor:
        """(batch, length, dim) states of the nodes, each where its item first stands; other rows are never read.

        Args:
            states: (batch, length, dim) item vectors; a node takes that of the item's first place.
            node_of: (batch, length, length) what `nodes` gives.
        """
        edges = node_of[:, :-1].transpose(1, 2) @ node_of[:, 1:]
        leaving = edges / edges.sum(2, keepdim=True).clamp(min=1)
        entering = edges.transpose(1, 2)
        entering = entering / entering.sum(2, keepdim=True).clamp(min=1)
        for _ in range(self.steps):
            heard = torch.cat([entering @ self.incoming(states), leaving @ self.outgoing(states)], 2)
            states = self.cell(heard.flatten(0, 1), states.flatten(0, 1)).view(states.shape)
        return states


def nodes(histories: Tensor) -> Tensor:
    """(batch, length, length) true at (i, j) where item i of a history first stood at place j; padding has no node."""
    same = (histories[:, :, None] == histories[:, None]) & (histories > 0)[:, None]
    repeated = same.tril(-1).any(2)
    return same & ~repeated[:, None]
