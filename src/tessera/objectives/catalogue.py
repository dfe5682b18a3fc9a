"""One door to every loss that ranks a target among items: settings in, a callable out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from tessera.objectives import sampled
from tessera.objectives.cross_entropy import cross_entropy
from tessera.settings.recommenders import BCE, BPR, GBCE, CrossEntropy, Loss, SampledSoftmax


class CatalogueLoss(Protocol):
    """Loss of states against the catalogue."""

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """Sum of the loss over targets.

        Args:
            states: (targets, dim) hidden states.
            vectors: (items + 1, dim) item vectors, row 0 the padding.
            targets: (targets,) item ids.
            owners: (targets,) row of `histories` that each target belongs to.
            histories: (batch, length) item ids, 0 where there is none.
        """


def _uniform(shape: tuple[int, ...], items: int, device: torch.device) -> Tensor:
    return torch.randint(1, items + 1, shape, device=device)


def _scores(states: Tensor, vectors: Tensor, ids: Tensor) -> Tensor:
    """(targets, n) scores of `ids` (targets, n)."""
    return torch.einsum("td,tnd->tn", states, vectors[ids])


def _full(states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
    return cross_entropy(states, vectors[1:], targets - 1)


class _SampledSoftmax:
    def __init__(self, settings: SampledSoftmax, popularity: Tensor) -> None:
        self.settings = settings
        items = len(popularity) - 1
        uniform = torch.full((items,), 1 / items, dtype=torch.float64)
        popular = popularity[1:].double() / popularity.sum().clamp(min=1)
        weight = {"uniform": 0.0, "popularity": 1.0, "mixed": 0.5}[settings.distribution]
        probability = (1 - weight) * uniform + weight * popular
        self.log_expected = (settings.negatives * probability).log().float()
        self.cumulative = probability.cumsum(0)

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        # the inverse of the cumulative distribution: torch.multinomial stops at 2^24 categories and is slower
        uniform = torch.rand(self.settings.negatives, dtype=torch.float64)
        drawn = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1]).clamp(max=len(self.cumulative) - 1)
        # drawn here, wherever the states are; nobody waits until a GPU has them
        log_expected = self.log_expected[drawn].to(states.device, non_blocking=True)
        ids = (drawn + 1).to(states.device, non_blocking=True)
        positive = (states * vectors[targets]).sum(1)
        negative = states @ vectors[ids].T
        return sampled.sampled_softmax(positive, negative, log_expected, ids[None] == targets[:, None])


class _GBCE:
    def __init__(self, settings: GBCE, items: int) -> None:
        self.settings = settings
        self.items = items
        self.beta = sampled.gbce_beta(settings.negatives, items, settings.calibration)

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        positive = (states * vectors[targets]).sum(1)
        if self.settings.shared:
            ids = _uniform((1, self.settings.negatives), self.items, states.device)
            negative = states @ vectors[ids[0]].T
        else:
            ids = _uniform((len(targets), self.settings.negatives), self.items, states.device)
            negative = _scores(states, vectors, ids)
        return sampled.gbce(positive, negative, self.beta, ids == targets[:, None])


class _Pairwise:
    """BCE or BPR against uniform negatives that are not in the history (redrawn a few times, then left out)."""

    def __init__(self, settings: BCE | BPR, items: int) -> None:
        self.settings = settings
        self.items = items

    def _draw(self, owners: Tensor, histories: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.zeros(len(histories), self.items + 1, dtype=torch.bool, device=histories.device)
        seen.scatter_(1, histories, True)
        ids = _uniform((len(owners), self.settings.negatives), self.items, histories.device)
        for _ in range(5):
            taken = seen[owners[:, None], ids]
            ids = torch.where(taken, _uniform(tuple(ids.shape), self.items, ids.device), ids)
        return ids, seen[owners[:, None], ids]

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        ids, collision = self._draw(owners, histories)
        positive = (states * vectors[targets]).sum(1)
        negative = _scores(states, vectors, ids)
        if isinstance(self.settings, BPR):
            return sampled.bpr(positive, negative, collision)
        return sampled.gbce(positive, negative, 1.0, collision)


def catalogue_loss(settings: Loss, popularity: Tensor) -> CatalogueLoss:
    """The loss that the settings name.

    Args:
        popularity: (items + 1,) training interactions an item, index 0 unused.
    """
    items = len(popularity) - 1
    if isinstance(settings, CrossEntropy):
        return _full
    if isinstance(settings, SampledSoftmax):
        return _SampledSoftmax(settings, popularity)
    if isinstance(settings, GBCE):
        return _GBCE(settings, items)
    return _Pairwise(settings, items)
