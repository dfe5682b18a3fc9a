"""What systems share that are trained under every backbone of the experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from tessera.settings.base import ASIDE, each_once
from tessera.settings.losses.base import Loss
from tessera.settings.references import BackboneName
from tessera.settings.systems.base import TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config


class UnderBackbones(TrainedSystem):
    """A system whose histories are read by a backbone: a run under each of the experiment's, with the one loss."""

    FREE: ClassVar[frozenset[str]] = TrainedSystem.FREE | {"loss", "backbones"}

    loss: Annotated[Loss | None, ASIDE] = None
    """Overrides the experiment's `loss`."""
    backbones: Annotated[
        Annotated[list[BackboneName], Field(min_length=1), AfterValidator(each_once)] | None, ASIDE
    ] = None
    """Only under these backbones; null takes the experiment's."""

    def under(self, config: Config) -> list[str]:
        """Those that it names, or the experiment's."""
        return list(self.backbones or config.experiment.backbones)
