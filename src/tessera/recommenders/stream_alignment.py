"""Alignment of modalities to the law of an ID stream: by a fitted score, or by the states themselves.

The score is fitted by a network of its own, from the states alone: a discrepancy that its own score were fitted to make
small would have no least value. The states get no gradient from either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.objectives.mmd import kernel_mmd
from tessera.objectives.stein import score_matching, stein_discrepancy
from tessera.recommenders.streams import Drawn
from tessera.settings.systems.findrec import StreamAlignment


class ScoreNetwork(nn.Module):
    """Vectors to gradients of a log density; at the start of the standard normal one, which unit size suits."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim) to the same."""
        score: Tensor = self.layers(x) - x
        return score


class Alignment(nn.Module):
    """What ID states are projected to, what modalities are mapped to, and how unlike the two are."""

    projection: Tensor

    def __init__(self, settings: StreamAlignment, dim: int, width: int, modalities: int) -> None:
        """
        Args:
            settings: the estimator.
            dim: width of the ID states.
            width: of a modality's vectors.
            modalities: how many.
        """
        super().__init__()
        self.settings = settings
        # fixed: one that were trained could make any two laws alike by mapping both to a point
        self.register_buffer("projection", nn.init.orthogonal_(torch.empty(dim, settings.dim)))
        self.maps = nn.ModuleList(nn.Linear(width, settings.dim) for _ in range(modalities))
        self.score = ScoreNetwork(settings.dim, settings.score.hidden) if settings.estimator == "ksd" else None

    def project(self, states: Tensor) -> Tensor:
        """(n, align dim) ID states (n, dim) where they are compared, without gradients."""
        with torch.autocast(states.device.type, enabled=False):
            return states.detach().float() @ self.projection

    def forward(self, drawn: Drawn, states: Tensor) -> Tensor:
        """() the mean over modalities of how unlike the ID stream they are.

        Args:
            drawn: the items compared; those that lack a modality are left out of it.
            states: (n, align dim) of the ID stream, at unit mean square.
        """
        losses = []
        for number, mapped in enumerate(self.maps):
            own = drawn.vectors[drawn.known[:, number], number]
            rows = mapped(own)
            if len(rows) < 2 or len(states) < 2:  # nothing that could be compared, but still a loss with a gradient
                losses.append(rows.sum() * 0)
            elif self.score is None:
                losses.append(kernel_mmd(rows, states))
            else:
                losses.append(stein_discrepancy(rows, self.score).clamp(min=0))
        return torch.stack(losses).mean()

    def fit(self, states: Tensor, noise: Tensor) -> Tensor:
        """() the loss that the score network alone is trained by; arguments (n, align dim)."""
        assert self.score is not None
        return score_matching(states, self.score, noise, self.settings.score.noise)
