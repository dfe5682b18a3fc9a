"""What sessions say of the transitions of items, and what of an item's knowledge tells of it (TPAD-style)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.evaluation.histories import slices
from tessera.objectives.club import ConditionalNormal, club, likelihood_loss
from tessera.objectives.mmd import kernel_mmd
from tessera.recommenders.backbones.base import Backbone
from tessera.settings.systems.tpad import Disentangling

_BLOCK = 1024
"""Histories whose states are made at a time."""
_FARTHEST = 3.0
"""Of what heads make, from zero; transfer features have unit mean square, so that few of their numbers lie beyond."""


@torch.no_grad()
def mean_states(
    backbone: Backbone, vectors: Tensor, offsets: np.ndarray, items: np.ndarray
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What a model of histories holds when an item has just come, the mean over all its occurrences.

    Args:
        backbone: reads the histories; dropout is off meanwhile.
        vectors: (items + 1, dim) as it reads them.
        offsets: (users + 1,) user u stands in rows offsets[u - 1]:offsets[u].
        items: (rows,) training interactions alone, in time order within a user.
    Returns:
        (items + 1, dim) float32 means, zero where an item never came, and (items + 1,) whether it did. Sums are made on
        the CPU in one order, so that they are the same bits on any number of processes.
    """
    training = backbone.training
    backbone.eval()
    begins = np.repeat(offsets[:-1], np.diff(offsets))
    ends = np.arange(len(items))
    starts = np.maximum(begins, ends + 1 - backbone.max_length)
    sums = torch.zeros(len(vectors), backbone.dim, dtype=torch.float64)
    for first in range(0, len(items), _BLOCK):
        chosen = slice(first, first + _BLOCK)
        lengths = ends[chosen] + 1 - starts[chosen]
        read = slices(items, starts[chosen], lengths, np.zeros_like(lengths), None).to(vectors.device)
        states = backbone.encode(read.items, read.lengths, vectors)
        sums.index_add_(0, torch.from_numpy(items[chosen]).long(), states.double().cpu())
    backbone.train(training)
    counts = torch.from_numpy(np.bincount(items, minlength=len(vectors)))
    means = (sums / counts.clamp(min=1)[:, None]).float()
    return means.to(vectors.device), (counts > 0).to(vectors.device)


class Parts(NamedTuple):
    """A knowledge feature taken apart."""

    relevant: Tensor
    """(n, width of the transfer features) what tells of transitions."""
    irrelevant: Tensor
    """(n, width) the rest."""


class Disentangler(nn.Module):
    """Two heads that take the knowledge features of a modality apart, and a decoder that puts them together again."""

    def __init__(self, settings: Disentangling, knowledge: int, transfer: int) -> None:
        super().__init__()
        self.relevant = _head(knowledge, settings.hidden, transfer)
        self.irrelevant = _head(knowledge, settings.hidden, settings.width)
        self.decoder = _head(transfer + settings.width, settings.hidden, knowledge)

    def forward(self, knowledge: Tensor) -> Parts:
        """(n, width) features taken apart, within bounds: by parts that run away the laws would be told nothing."""
        return Parts(*(_FARTHEST * (head(knowledge) / _FARTHEST).tanh() for head in (self.relevant, self.irrelevant)))

    def rebuilt(self, parts: Parts) -> Tensor:
        """(n, width) the feature that both parts make."""
        made: Tensor = self.decoder(torch.cat(parts, 1))
        return made


class Laws(nn.Module):
    """What the upper bounds ask: the laws of transfer feature and relevant part, given the irrelevant part."""

    def __init__(self, settings: Disentangling, transfer: int) -> None:
        super().__init__()
        hidden = settings.estimator.hidden
        self.of_transfer = ConditionalNormal(settings.width, hidden, transfer)
        self.of_relevant = ConditionalNormal(settings.width, hidden, transfer)

    def bound(self, parts: Parts, transfer: Tensor) -> Tensor:
        """() how much the irrelevant part may tell of the other two, in nats at most; their sum.

        Information is never negative: a bound below zero only says that its law does not fit, which the heads could
        bring about without end. It counts as zero.
        """
        given = parts.irrelevant
        means, log_variances = self.of_transfer(given)
        of_transfer = club(means, log_variances, transfer)
        means, log_variances = self.of_relevant(given)
        return of_transfer.clamp(min=0) + club(means, log_variances, parts.relevant).clamp(min=0)

    def misfit(self, parts: Parts, transfer: Tensor) -> Tensor:
        """() what they are fitted by; nothing that they are asked about moves."""
        given, relevant = parts.irrelevant.detach(), parts.relevant.detach()
        means, log_variances = self.of_transfer(given)
        of_transfer = likelihood_loss(means, log_variances, transfer)
        means, log_variances = self.of_relevant(given)
        return of_transfer + likelihood_loss(means, log_variances, relevant)


def contrast(relevant: Tensor, transfer: Tensor, temperature: float) -> Tensor:
    """() InfoNCE: the cross-entropy of telling an item's transfer feature by its relevant part among all of the step.

    log n less this is a lower bound, in nats, of what the one tells of the other.
    """
    cosines = F.normalize(relevant, dim=1) @ F.normalize(transfer, dim=1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(relevant), device=relevant.device))


def disentangling_losses(
    settings: Disentangling, heads: Disentangler, laws: Laws | None, knowledge: Tensor, transfer: Tensor
) -> tuple[dict[str, Tensor], Parts]:
    """The losses of a modality by name, unweighted, and the parts that they were made of.

    Args:
        settings: says by its weights which are wanted.
        heads: of the modality.
        laws: of the modality; None where no upper bound is wanted.
        knowledge: (n, width) features; two items or more.
        transfer: (n, width) features of the same items, which carry no gradient.
    """
    parts = heads(knowledge)
    losses: dict[str, Tensor] = {}
    if settings.lower:
        losses["lower"] = contrast(parts.relevant, transfer, settings.temperature)
    if laws is not None:
        losses["upper"] = laws.bound(parts, transfer)
    if settings.mmd:
        losses["mmd"] = kernel_mmd(parts.relevant, transfer)
    if settings.reconstruction:
        losses["reconstruction"] = F.mse_loss(heads.rebuilt(parts), knowledge)
    return losses, parts


def _head(entering: int, hidden: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(entering, hidden), nn.GELU(), nn.Linear(hidden, leaving))
