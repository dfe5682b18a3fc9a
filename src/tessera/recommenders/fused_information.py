"""The information bottleneck of fused vectors: what they keep under absences, and what they leave out of each table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tessera.objectives.club import ConditionalNormal, club, likelihood_loss
from tessera.objectives.contrastive import soft_contrastive
from tessera.recommenders.environments import Environments, MaskedFusion, Views
from tessera.settings.systems.i3_mrec_base import Compress, InvariantModalities, Keep


class Asked(NamedTuple):
    """What an estimator was asked about in a step, without gradients."""

    name: str
    x: Tensor
    """(n, width) rows of the table."""
    y: Tensor
    """(n, dim) what it is fitted on."""


def patterns(environments: int) -> list[Tensor]:
    """All (environments,) bool patterns of what is there, but that nothing is."""
    numbers = range(1, 2**environments)
    return [torch.tensor([bool(number >> place & 1) for place in range(environments)]) for number in numbers]


class KeptInformation:
    """Contrasts of an item's fused vectors under all pairs of absences."""

    def __init__(self, settings: InvariantModalities, keep: Keep, fusion: MaskedFusion) -> None:
        self.settings, self.keep, self.fusion = settings, keep, fusion

    def __call__(self, views: Views, items: Tensor) -> Tensor:
        """() the mean over pairs of patterns of InfoNCE in both directions, among the items for which they differ.

        Args:
            views: of all items.
            items: (n,) different ids.
        """
        vectors, known = self.fusion.entering(views.vectors[:, items]), views.known[items]
        seen = [known & pattern.to(known.device) for pattern in patterns(known.shape[1])]
        fused = [self.fusion.made(self.fusion.mean(vectors, available)) for available in seen]
        losses = list(self._pairs(seen, fused))
        if not losses:  # nothing that could be compared, but still a loss with a gradient
            return self.fusion.weight.weight.sum() * 0
        return self.together(torch.stack(losses))

    def together(self, losses: Tensor) -> Tensor:
        """() of the contrasts (pairs,)."""
        return losses.mean()

    def _pairs(self, seen: list[Tensor], fused: list[Tensor]) -> Iterator[Tensor]:
        for one, other in combinations(range(len(seen)), 2):
            # an item that lacks what tells two patterns apart has one vector twice, or none
            apart = seen[one].any(1) & seen[other].any(1) & (seen[one] != seen[other]).any(1)
            if int(apart.sum()) > 1:
                yield soft_contrastive(
                    fused[one][apart], fused[other][apart], self.keep.temperature, normalize=True, targets="identity"
                )


class CompressedInformation(nn.Module):
    """A bound of the mutual information of fused vectors with each table, by estimators that others do not train."""

    def __init__(self, settings: InvariantModalities, compress: Compress, widths: Mapping[str, int], dim: int) -> None:
        """
        Args:
            settings: of the system.
            compress: how.
            widths: of the tables, by modality.
            dim: of the fused vectors.
        """
        super().__init__()
        self.settings = settings
        self.estimators = nn.ModuleDict(
            {name: ConditionalNormal(width, compress.hidden, dim) for name, width in widths.items()}
        )
        self.asked: list[Asked] = []
        """Of the step that is going on."""

    def forward(self, environments: Environments, views: Views, fused: Tensor, items: Tensor) -> Tensor:
        """() the mean over tables of the bound in nats; what the estimators are then fitted on is kept.

        Args:
            environments: whose tables.
            views: of all items.
            fused: (items + 1, dim).
            items: (n,) different ids.
        """
        self.asked, bounds = [], []
        for number, name in enumerate(self.estimators):
            own = items[views.known[items, number]]
            with torch.autocast(fused.device.type, enabled=False):
                x, y = environments.table(name)[own], fused[own].float()
                if len(own) < 2:
                    bounds.append(y.sum() * 0)
                    continue
                # the information of y is that of y at any scale; estimators are asked at unit size
                y = _unit(y)
                self.asked.append(Asked(name, x, self.fitted_on(y, _unit(views.vectors[number, own].float()))))
                means, log_variances = self.estimators[name](x)
                bounds.append(club(means, log_variances, y))
        return torch.stack(bounds).mean()

    def fitted_on(self, fused: Tensor, own: Tensor) -> Tensor:
        """(n, dim) what an estimator is fitted on: what it was asked about; `own` are its modality's vectors."""
        return fused.detach()

    def fit(self) -> Tensor:
        """() how badly the estimators know what they were asked about in this step."""
        losses = []
        for asked in self.asked:
            with torch.autocast(asked.x.device.type, enabled=False):  # in the precision in which they are asked
                means, log_variances = self.estimators[asked.name](asked.x)
                losses.append(likelihood_loss(means, log_variances, asked.y))
        self.asked = []
        if not losses:  # a step without two items: still a loss with a gradient
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        return torch.stack(losses).mean()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors at unit mean square over all of them."""
    return vectors / vectors.detach().square().mean().sqrt().clamp(min=1e-6)
