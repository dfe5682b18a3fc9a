"""What systems share that are trained under every backbone of the experiment."""

from __future__ import annotations

from tessera.settings.losses.base import Loss
from tessera.settings.references import BackboneName
from tessera.settings.systems.base import TrainedSystem


class UnderBackbones(TrainedSystem):
    """A system whose histories are read by a backbone: a run under each of the experiment's, with the one loss."""

    loss: Loss | None = None
    """Overrides the experiment's `loss`."""
    backbones: list[BackboneName] | None = None
    """Only under these backbones; null takes the experiment's."""
