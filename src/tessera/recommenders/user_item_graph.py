"""The graph of users and items that training interactions make, and what is propagated along its edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import TrainingHistories


class _Product(torch.autograd.Function):
    """A sparse symmetric matrix times a dense one: the gradient is the same product."""

    @staticmethod
    def forward(ctx: FunctionCtx, dense: Tensor, matrix: Tensor) -> Tensor:
        ctx.matrix = matrix  # type: ignore[attr-defined]
        product: Tensor = torch.sparse.mm(matrix, dense)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.sparse.mm(ctx.matrix, gradients[0].contiguous()), None


class UserItemGraph(nn.Module):
    """Training histories as saved with the weights, and the normalised adjacency of users and items.

    An edge is a pair of a user and an item that met in training, once however often. Before training, and before
    weights are read, it knows no user.
    """

    offsets: Tensor
    items: Tensor

    def __init__(self, count: int) -> None:
        """
        Args:
            count: rows of items, the padding with them.
        """
        super().__init__()
        self.count = count
        self.register_buffer("offsets", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("items", torch.zeros(0, dtype=torch.int32))
        self._matrix: Tensor | None = None

    @property
    def users(self) -> int:
        """Rows of users; row 0 is nobody."""
        return len(self.offsets)

    def meet(self, histories: TrainingHistories) -> None:
        """Take the training interactions of all users."""
        device = self.offsets.device
        self.offsets = torch.from_numpy(np.asarray(histories.offsets, np.int64).copy()).to(device)
        self.items = torch.from_numpy(np.asarray(histories.items, np.int32).copy()).to(device)
        self._matrix = None

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        for name in ("offsets", "items"):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != getattr(self, name).shape:
                setattr(self, name, torch.empty_like(saved, device=getattr(self, name).device))
        self._matrix = None
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def add(self, items: int) -> None:
        """Put so many items behind the others, without an edge."""
        self.count += items
        self._matrix = None

    # ------------------------------------------------------------ edges

    def edges(self) -> tuple[Tensor, Tensor]:
        """(edges,) users and (edges,) items, each pair once, by user and then by item."""
        lengths = self.offsets.diff()
        users = torch.arange(1, self.users, device=self.offsets.device).repeat_interleave(lengths)
        keys: Tensor = (users * self.count + self.items).unique()  # type: ignore[no-untyped-call]
        return keys // self.count, keys % self.count

    def matrix(self) -> Tensor:
        """Sparse (users + items, users + items): 1 / sqrt(degree of one x degree of the other) at every edge."""
        if self._matrix is None or self._matrix.device != self.offsets.device:
            users, items = self.edges()
            pairs = torch.stack([torch.cat([users, items + self.users]), torch.cat([items + self.users, users])])
            size = self.users + self.count
            roots = torch.bincount(pairs[0], minlength=size).clamp(min=1).float().rsqrt()
            values = roots[pairs[0]] * roots[pairs[1]]
            self._matrix = torch.sparse_coo_tensor(pairs, values, (size, size), check_invariants=True).coalesce()
        return self._matrix

    def propagate(self, vectors: Tensor, layers: int) -> Tensor:
        """(users + items, width) the mean of vectors and of what `layers` convolutions make of them (LightGCN).

        Args:
            vectors: (users + items, width).
            layers: how many.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            layer = vectors.float()
            total = layer
            for _ in range(layers):
                layer = _Product.apply(layer, self.matrix())  # type: ignore[no-untyped-call]
                total = total + layer
        return total / (layers + 1)

    def degrees(self) -> Tensor:
        """(items + 1,) users who met an item; at least 1."""
        return torch.bincount(self.edges()[1], minlength=self.count).clamp(min=1)

    # ------------------------------------------------------------ who is known

    def known(self, histories: Histories) -> Tensor:
        """(batch,) bool: users of training whose histories begin as training saw them.

        Ids are those of one dataset: of another, they would be somebody else.
        """
        users = torch.where(histories.users < self.users, histories.users, 0)
        before = torch.cat([self.offsets[:1], self.offsets])[users]  # user u ends at offsets[u]
        lengths = self.offsets[users] - before
        asked = histories.items
        reached = (lengths > 0) & (histories.lengths >= lengths)
        last = (lengths - 1).clamp(min=0, max=asked.shape[1] - 1)
        first_known = self.items[torch.where(reached, before, 0)] if len(self.items) else asked[:, 0]
        last_known = self.items[torch.where(reached, before + last, 0)] if len(self.items) else asked[:, 0]
        alike = (first_known == asked[:, 0]) & (last_known == asked.gather(1, last[:, None])[:, 0])
        return (users > 0) & reached & alike


@dataclass(frozen=True)
class Pairs:
    """Edges of a batch."""

    users: Tensor
    """(n,) ids."""
    items: Tensor
    """(n,) ids of items that the users met."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, users=self.users.to(device), items=self.items.to(device))


class EdgeBatches:
    """Batches of edges, each edge once an epoch."""

    def __init__(self, graph: UserItemGraph, size: int) -> None:
        """
        Args:
            graph: whose edges.
            size: edges of a batch.
        """
        self.users, self.items = (part.cpu() for part in graph.edges())
        self.size = size
        self.targets = len(self.users)

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The edges of each batch."""
        order = np.random.default_rng((seed, epoch)).permutation(self.targets)
        return [order[start : start + self.size] for start in range(0, self.targets, self.size)]

    def batch(self, numbers: np.ndarray) -> Pairs:
        """The edges of these numbers."""
        chosen = torch.from_numpy(numbers)
        return Pairs(self.users[chosen], self.items[chosen])


class Negatives:
    """One item a pair that its user did not meet, drawn uniformly: the same whatever shares the step."""

    TRIES = 8

    def __init__(self, graph: UserItemGraph) -> None:
        users, items = graph.edges()
        self.count = graph.count
        self.keys = users * graph.count + items

    def draw(self, users: Tensor, *seed: int) -> Tensor:
        """(n,) items for users (n,) of this process; of somebody who met all of a few draws, the last of those."""
        world, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        drawn = np.random.default_rng(seed).integers(1, self.count, (world * (len(users) + 1), self.TRIES))
        tries = torch.from_numpy(drawn[rank::world][: len(users)]).to(users.device)
        keys = users[:, None] * self.count + tries
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        free = self.keys[place] != keys
        free[:, -1] = True
        return tries.gather(1, free.int().argmax(1, keepdim=True))[:, 0]
