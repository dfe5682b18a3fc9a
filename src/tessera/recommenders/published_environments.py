"""Parts of I3-MRec with the published habits that are thought wrong, each where its key asks for it."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.recommenders.environments import Environments, MaskedFusion, Views
from tessera.recommenders.fused_information import CompressedInformation, KeptInformation


class PublishedEnvironments(Environments):
    """A missing row is one of zeros, so that its vector is the projection's bias, and counts like any other."""

    def known(self) -> Tensor:
        """See `Environments.known`."""
        known = super().known()
        return torch.ones_like(known) if self.settings.absent == "bias" else known

    def _projected(self, name: str) -> Tensor:
        if self.settings.absent != "bias":
            return super()._projected(name)
        projected: Tensor = self.project[name](self.table(name) * self.of(name)()[:, None])
        return projected


class PublishedFusion(MaskedFusion):
    """Sums are divided by how many modalities there are, whatever an item has."""

    def forward(self, views: Views) -> Tensor:
        """See `MaskedFusion.forward`."""
        if self.settings.absent != "bias":
            return super().forward(views)
        return self.made(self.mean(self.entering(views.vectors), views.known))

    def divisor(self, available: Tensor) -> Tensor:
        """See `MaskedFusion.divisor`."""
        if self.settings.divide == "available":
            return super().divisor(available)
        return available.new_full((len(available), 1), available.shape[1], dtype=torch.int64)


class PublishedKept(KeptInformation):
    """Seven sixths of the sum over ordered pairs."""

    def together(self, losses: Tensor) -> Tensor:
        """See `KeptInformation.together`; each pair has both directions in one."""
        return losses.sum() * (2 * 7 / 6) if self.settings.pairs == "seven_sixths" else super().together(losses)


class PublishedCompressed(CompressedInformation):
    """Estimators are fitted on each modality's own vectors, and asked about the fused ones."""

    def fitted_on(self, fused: Tensor, own: Tensor) -> Tensor:
        """See `CompressedInformation.fitted_on`."""
        return own.detach() if self.settings.fitted_on == "projections" else super().fitted_on(fused, own)
