"""One door to every loss that ranks a target among items: settings in, a callable out."""

from __future__ import annotations

from torch import Tensor

from tessera.objectives.losses.base import CatalogueLoss
from tessera.settings.kinds import implementation
from tessera.settings.losses.base import Loss


def catalogue_loss(settings: Loss, popularity: Tensor) -> CatalogueLoss:
    """The loss that the settings name.

    Args:
        popularity: (items + 1,) training interactions an item, index 0 unused.
    """
    loss: CatalogueLoss = implementation(settings)(settings, popularity)
    return loss
