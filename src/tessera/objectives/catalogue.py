"""One door to every loss that ranks a target among items: settings in, a callable out."""

from __future__ import annotations

from torch import Tensor

from tessera.objectives.losses.base import CatalogueLoss
from tessera.settings.kinds import implementation
from tessera.settings.losses.base import Loss


def catalogue_loss(settings: Loss, popularity: Tensor) -> CatalogueLoss:
    """The loss that the settings name.

    Args:
        settings: which, and whether items without a training interaction are negatives.
        popularity: (items + 1,) training interactions an item, index 0 unused.
    """
    made: type[CatalogueLoss] = implementation(settings)
    if settings.cold_items == "left_out" and bool((popularity[1:] == 0).any()):
        return WithoutCold(settings, made, popularity)
    return made(settings, popularity)  # type: ignore[call-arg]


class WithoutCold:
    """A loss over the items that training knows: no other is a negative, and none of them is a target."""

    def __init__(self, settings: Loss, made: type[CatalogueLoss], popularity: Tensor) -> None:
        known = popularity > 0
        known[0] = True  # the padding keeps its place
        self.kept = known.nonzero()[:, 0]
        self.place = known.long().cumsum(0) - 1
        """(items + 1,) where a kept item stands among those kept."""
        self.loss = made(settings, popularity[self.kept])  # type: ignore[call-arg]

    def __call__(self, states: Tensor, vectors: Tensor, targets: Tensor, owners: Tensor, histories: Tensor) -> Tensor:
        """See `CatalogueLoss`."""
        known, place = self.among(vectors)
        return self.loss(states, known, place[targets], owners, place[histories])

    def among(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, dim) of vectors (items + 1, dim) those that count, the padding first, and where each item stands."""
        self.kept, self.place = self.kept.to(vectors.device), self.place.to(vectors.device)
        return vectors[self.kept], self.place
