"""I3-MRec (ACM MM 2025): users and items with a graph convolution a modality, each an environment of one preference.

A top-N system without an order in time. A user is a trained vector plus what the convolutions say; what comes after
the training interactions in a history is not read. Somebody whom training did not know is made from the items of the
history, as one more convolution would.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.recommenders.environments import Views
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate
from tessera.recommenders.systems.invariant import InvariantRecommender, Modalities
from tessera.recommenders.user_item_graph import EdgeBatches, Negatives, Pairs, UserItemGraph
from tessera.settings.runs import Run
from tessera.settings.systems.i3_mrec_graph import I3MRecGraphSystem
from tessera.training.losses import Losses, Term
from tessera.training.phases import Phase, Position

_SPREAD = 0.1
"""Standard deviation of users' vectors at the start."""


class UserVectors(nn.Module):
    """A trained vector a user, of as many users as training, or the weights that are read, have."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dim))

    def meet(self, users: int) -> None:
        """Begin with so many, nobody with them."""
        drawn = torch.randn(users, self.weight.shape[1], device=self.weight.device) * _SPREAD
        self.weight = nn.Parameter(drawn)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        saved = state_dict.get(prefix + "weight")
        if saved is not None and saved.shape != self.weight.shape:
            self.weight = nn.Parameter(torch.empty_like(saved, device=self.weight.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class I3MRecGraph(InvariantRecommender):
    """The graph, the users' vectors, the environments and their fusion."""

    known_users: Tensor | None
    """(users + 1, dim) of the last catalogue that was made."""

    def __init__(self, settings: I3MRecGraphSystem, modalities: Modalities, items: int, seed: int) -> None:
        super().__init__(settings, modalities, settings.dim, seed)
        self.settings = settings
        self.vectors = UserVectors(settings.dim)
        self.graph = UserItemGraph(items + 1)
        self.negatives: Negatives | None = None
        self.register_buffer("known_users", None, persistent=False)

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> I3MRecGraph:
        """See `Recommender.build`.

        Raises:
            ValueError: a table was not given or says nothing of any item.
        """
        assert isinstance(run.method, I3MRecGraphSystem)
        items = len(popularity) - 1
        return cls(run.method, Modalities(run.method, run.system, inputs, items), items, run.seed)

    def item_rows(self) -> Collection[str]:
        """None that a run could go on from.

        Raises:
            ValueError: always.
        """
        raise ValueError("it has a vector a user and the graph of the users of one dataset")

    # ------------------------------------------------------------ training

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """See `InvariantRecommender.program`; the graph is that of the training interactions, and of no other."""
        self.graph.meet(histories)
        self.vectors.meet(self.graph.users)
        self.negatives = None
        return super().program(run, histories, validate)

    def batches(self, run: Run, histories: TrainingHistories) -> EdgeBatches:
        """Edges of the graph; `batch_tokens` of them a step."""
        return EdgeBatches(self.graph, run.training.batch_tokens)

    def convolved(self, views: Views) -> tuple[Tensor, Tensor]:
        """(environments, users + 1, dim) users and (environments, items + 1, dim) items after the convolutions.

        All environments are propagated side by side, in one product a layer.
        """
        own = F.normalize(self.vectors.weight, dim=1)
        entering = [torch.cat([own, F.normalize(vectors, dim=1)]) for vectors in views.vectors]
        after = self.graph.propagate(torch.cat(entering, 1), self.settings.layers)
        apart = torch.stack(after.chunk(len(entering), dim=1))
        return apart[:, : self.graph.users], apart[:, self.graph.users :]

    def losses(self, pairs: Pairs, at: Position) -> Losses:
        """BPR of the fused vectors and of each environment, how unlike those are, and the bottleneck."""
        if self.negatives is None:
            self.negatives = Negatives(self.graph)
        others = self.negatives.draw(pairs.users, self.seed, at.epoch, at.step)
        users, items, views, fused = self._all()
        own = self.vectors.weight[pairs.users]
        asked = users[:, pairs.users]  # (environments, pairs, dim)
        difference = ((own + asked.mean(0)) * (fused[pairs.items] - fused[others])).sum(1)
        count = torch.full((), len(own), device=own.device)
        risks, gradients, counts = [], [], []
        for number, of_users in enumerate(asked):
            known = views.known[pairs.items, number]
            positive, negative = items[number, pairs.items], items[number, others]
            margins = ((own + of_users) * (positive - negative)).sum(1)[known]
            risks.append(_bpr(margins))
            # d/dw of -log sigmoid(w m) at w = 1
            gradients.append(-(margins * (-margins).sigmoid()).sum())
            counts.append(torch.full((), len(margins), device=own.device))
        convolved = Views(items, views.known)
        return {
            "recommendation": Term(_bpr(difference), count),
            **self._regularization(own + asked, items[:, pairs.items], items[:, others], count),
            **self.environment_losses(risks, gradients, counts, count, at),
            **self.information_losses(convolved, fused, pairs.items, at),
        }

    def _all(self) -> tuple[Tensor, Tensor, Views, Tensor]:
        """Users and items of each environment, what was convolved, and the fused items."""
        views: Views = self.environments()
        users, items = self.convolved(views)
        fused: Tensor = self.fusion(Views(items, views.known))
        return users, items, views, fused

    def _regularization(self, users: Tensor, positive: Tensor, negative: Tensor, count: Tensor) -> Losses:
        if not self.settings.regularization:
            return {}
        lengths = self.lengths(users, positive, negative)
        return {"regularization": Term(self.settings.regularization * lengths, count)}

    def lengths(self, users: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """() half the squared lengths, the mean of the environments, summed over pairs.

        Args:
            users: (environments, n, dim).
            positive: (environments, n, dim) items that they met.
            negative: (environments, n, dim) others.
        """
        squares = users.square() + positive.square() + negative.square()
        return squares.sum() / (2 * len(users))

    # ------------------------------------------------------------ scores

    def catalogue(self) -> Catalogue:
        """Items fused; histories of people whom training did not know read what a convolution would take of them."""
        users, items, _, fused = self._all()
        self.known_users = self.vectors.weight + users.mean(0)
        return Catalogue(items.mean(0) / self.graph.degrees()[:, None].sqrt(), fused)

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) by id whom training knew; others by one convolution of their history's items."""
        real = (histories.items > 0)[..., None]
        made = (F.embedding(histories.items, catalogue.read) * real).sum(1) / histories.lengths[:, None].sqrt()
        # a graph to hand on knows nobody
        if self.known_users is None or torch.compiler.is_compiling():
            return made[:, None]
        known = self.graph.known(histories)
        by_id = self.known_users[torch.where(known, histories.users, 0)]
        return torch.where(known[:, None], by_id, made)[:, None]

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`: a new item is in no edge."""
        super().add_items(tables)
        self.graph.add(len(self.environments.known()) - self.graph.count)


def _bpr(margins: Tensor) -> Tensor:
    """() the sum of -log sigmoid of margins (n,)."""
    return -F.logsigmoid(margins).sum()
