"""From a history to several vectors of a user: self-attention and dynamic routing (ComiRec, KDD 2020; MIND, CIKM 2019).

Both read item vectors (batch, length, dim) under a mask (batch, ends, length) that says what each end of a history has
seen: all ends of a window in training, the last one when scoring. Both give (batch, ends, K, dim).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tessera.settings.systems.eimf import EIMFSystem


class MultiInterest(nn.Module, ABC):
    """What makes several vectors of a history."""

    def __init__(self, settings: EIMFSystem) -> None:
        super().__init__()
        self.ages: nn.Parameter | None = None
        if settings.order == "ages":
            horizons = 2.0 ** torch.arange(settings.vectors)
            self.ages = nn.Parameter(-torch.arange(settings.max_length) / horizons[:, None])
        self.norm = nn.LayerNorm(settings.dim) if settings.norm else None
        # at the size that a norm gives: trained vectors begin far below one, where nothing saturates and little learns
        self.scale = settings.dim**0.5 if settings.norm else 1.0

    def forward(self, inputs: Tensor, visible: Tensor) -> Tensor:
        """(batch, ends, K, dim) of item vectors (batch, length, dim); each end sees the items up to a last one.

        Args:
            inputs: item vectors, oldest first.
            visible: (batch, ends, length) bool.
        """
        vectors = self.read(inputs * self.scale, visible)
        return vectors if self.norm is None else self.norm(vectors)

    @abstractmethod
    def read(self, inputs: Tensor, visible: Tensor) -> Tensor:
        """See `forward`."""

    def aged(self, visible: Tensor) -> Tensor | None:
        """(batch, ends, K, length) how much an item counts by how many came after it, as a logarithm."""
        if self.ages is None:
            return None
        later = visible.sum(2, keepdim=True) - 1 - torch.arange(visible.shape[2], device=visible.device)
        return self.ages.T[later.clamp(min=0)].transpose(2, 3)


class SelfAttentive(MultiInterest):
    """K attentions over a history (ComiRec-SA)."""

    def __init__(self, settings: EIMFSystem) -> None:
        super().__init__(settings)
        dim = settings.dim
        self.positions: nn.Parameter | None = None
        if settings.order == "positions":
            self.positions = nn.Parameter(torch.randn(settings.max_length, dim) * 0.02)
        self.hidden = nn.Linear(dim, settings.inner_dim)
        self.attend = nn.Linear(settings.inner_dim, settings.vectors, bias=False)
        self.readout: nn.Linear | None = None
        if settings.readout == "linear":
            self.readout = nn.Linear(dim, dim, bias=False)
            nn.init.eye_(self.readout.weight)

    def read(self, inputs: Tensor, visible: Tensor) -> Tensor:
        """See `MultiInterest.forward`."""
        placed = inputs if self.positions is None else inputs + self.positions[: inputs.shape[1]]
        logits: Tensor = self.attend(torch.tanh(self.hidden(placed))).transpose(1, 2)[:, None]
        if (aged := self.aged(visible)) is not None:
            logits = logits + aged
        weights = logits.masked_fill(~visible[:, :, None], torch.finfo(logits.dtype).min).softmax(3)
        vectors = weights @ inputs[:, None]
        return vectors if self.readout is None else self.readout(vectors)


class Capsules(MultiInterest):
    """Items vote for K capsules, each through a map of its own; votes for what agrees grow (ComiRec-DR).

    As there, agreement is felt without a gradient.
    """

    def __init__(self, settings: EIMFSystem) -> None:
        super().__init__(settings)
        self.iterations = settings.iterations
        self.maps = nn.Parameter(torch.randn(settings.vectors, settings.dim, settings.dim) / settings.dim**0.5)

    def read(self, inputs: Tensor, visible: Tensor) -> Tensor:
        """See `MultiInterest.forward`."""
        votes = torch.einsum("bld,kde->bkle", inputs, self.maps)
        felt = votes.detach()
        counted = visible[:, :, None].to(inputs.dtype)
        if (aged := self.aged(visible)) is not None:
            counted = counted * aged.exp()
        agreement = inputs.new_zeros(*visible.shape[:2], votes.shape[1], visible.shape[2])
        for _ in range(self.iterations - 1):
            capsules = squash(_sums(agreement.softmax(2) * counted, felt))
            agreement = agreement + torch.einsum("btke,bkle->btkl", capsules, felt)
        return squash(_sums(agreement.softmax(2) * counted, votes))


def _sums(shares: Tensor, votes: Tensor) -> Tensor:
    """(batch, ends, K, dim) votes (batch, K, length, dim), each times its share."""
    return torch.einsum("btkl,bkle->btke", shares, votes)


def squash(vectors: Tensor) -> Tensor:
    """Vectors (..., dim) at a length between 0 and 1, in their direction (Sabour et al., NIPS 2017)."""
    squares = vectors.square().sum(-1, keepdim=True)
    return vectors * (squares.clamp(min=1e-30).sqrt() / (1 + squares))  # a root of zero has no gradient


def multi_interest(settings: EIMFSystem) -> MultiInterest:
    """The network that settings name."""
    return (SelfAttentive if settings.network == "attention" else Capsules)(settings)


def nearest(vectors: Tensor, targets: Tensor) -> Tensor:
    """(n, dim) of vectors (n, K, dim), the one that is nearest to its target (n, dim) by inner product."""
    best = (vectors @ targets[..., None]).squeeze(2).argmax(1)
    return vectors[torch.arange(len(vectors), device=vectors.device), best]
