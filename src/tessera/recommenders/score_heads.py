"""Scores of a catalogue by several heads that an item's popularity mixes (MME-SID, section 3.3).

y_j = p_j0 (w_j . h) + sum over tables m of p_jm (u_jm . h), where w_j is a trained vector of item j, u_jm its raw
table's row behind the projection that also makes its token, and p_j a softmax over the heads that depends on the item's
popularity.

Every term is linear in h, so the mixture is one inner product a pair of state and item, and can be had in two ways:

- the item's vectors are mixed, v_j = p_j0 w_j + sum_m p_jm u_jm: every item is expanded to the model's width, once a
  step;
- states are projected down instead of items up, (W e + b) . h = e . (W^T h) + b . h, a matrix of scores a head is
  made, and those are mixed.

Both are exact. With B states, N items, model width D and tables of width d in all, the first takes N d D + B N D
multiplications, the second B d D + B N (D + d). The second is less where B (N + D) < N D: with fewer states than the
model is wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tessera.objectives.cross_entropy import cross_entropy
from tessera.recommenders.item_tokens import RawBranch

Projections = Sequence[RawBranch]


class PopularityGate(nn.Module):
    """softmax(G(f) / temperature): G a small network, f the logarithm of an item's training interactions in [0, 1]."""

    features: Tensor
    which: Tensor

    def __init__(self, popularity: Tensor, heads: int, temperature: float) -> None:
        """
        Args:
            popularity: (items + 1,) training interactions an item.
            heads: scores to mix.
            temperature: divides the logits.
        """
        super().__init__()
        features, which = popularity_features(popularity).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        # items of the same popularity have the same mixture: as many rows as there are different counts
        self.register_buffer("features", features[:, None], persistent=False)
        self.register_buffer("which", which, persistent=False)
        self.temperature = temperature
        self.layers = nn.Sequential(
            nn.Linear(1, 64), nn.GELU(), nn.Linear(64, 10), nn.Linear(10, 64, bias=False),
            nn.GELU(), nn.Linear(64, heads),
        )  # fmt: skip

    def forward(self) -> Tensor:
        """(items + 1, heads) shares."""
        shares: Tensor = (self.layers(self.features) / self.temperature).softmax(1)
        return shares[self.which]


def popularity_features(popularity: Tensor) -> Tensor:
    """(items + 1,) log(1 + interactions), moved and scaled so that items lie in [0, 1]; float32."""
    logs = popularity.double().log1p()
    low, high = logs[1:].min(), logs[1:].max()
    return ((logs - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).float()


class ScoreHeads(nn.Module):
    """An ID head, and a head for each raw table given, mixed by popularity or added."""

    def __init__(
        self,
        items: int,
        width: int,
        gate: PopularityGate | None,
        scale: float = 1.0,
        padding_class: bool = False,
    ) -> None:
        """
        Args:
            items: of the catalogue.
            width: of states.
            gate: mixes the heads; None adds them.
            scale: multiplies the tables' heads. Their vectors are also input of the model and not small, as the ID
                head's are: without a scale the first scores are as large as the root of the width.
            padding_class: the loss counts row 0 as a class that is never true.
        """
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(items + 1, width).uniform_(-(width**-0.5), width**-0.5))
        self.gate = gate
        self.scale = scale
        self.first = 0 if padding_class else 1

    def shares(self) -> Tensor | None:
        """(items + 1, heads) share of each head, the ID head first; None where they are added."""
        return None if self.gate is None else self.gate()

    def _weights(self, raw: Projections) -> Tensor:
        """(items + 1, heads) what each head's score is multiplied by."""
        shares = self.shares()
        if shares is None:
            shares = self.vectors.new_ones(len(self.vectors), 1 + len(raw))
        return torch.cat([shares[:, :1], shares[:, 1:] * self.scale], dim=1)

    def catalogue(self, raw: Projections) -> Tensor:
        """(items + 1, width) v_j: an item's score is its product with the state."""
        weights = self._weights(raw)
        mixed = weights[:, :1] * self.vectors
        for number, branch in enumerate(raw, 1):
            mixed = mixed + weights[:, number, None] * branch(slice(None))
        return mixed

    def scores(self, states: Tensor, raw: Projections) -> Tensor:
        """(states, items + 1) scores of states (states, width); no item is expanded."""
        weights = self._weights(raw)
        total = weights[:, 0] * (states @ self.vectors.T)
        for number, branch in enumerate(raw, 1):
            scores = (states @ branch.projection.weight) @ branch.table.T + (states @ branch.projection.bias)[:, None]
            scores = torch.where(branch.present(), scores, (states @ branch.stand_in())[:, None])
            total = total + weights[:, number] * scores
        return total

    def loss(self, states: Tensor, targets: Tensor, raw: Projections) -> Tensor:
        """Sum of the cross-entropies over all items.

        Args:
            states: (targets, width).
            targets: (targets,) item ids.
            raw: the branches of the tables that score.
        """
        items, width = self.vectors.shape
        if raw and len(states) * (items + width) < items * width:
            logits = self.scores(states, raw)[:, self.first :]
            return nn.functional.cross_entropy(logits, targets - self.first, reduction="sum")
        return cross_entropy(states, self.catalogue(raw)[self.first :], targets - self.first)
