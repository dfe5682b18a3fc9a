"""One training with every default resolved."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from tessera.artifacts.files import identity
from tessera.settings.backbones.base import Backbone
from tessera.settings.base import Settings
from tessera.settings.evaluation import RepeatTargets
from tessera.settings.language import LanguageModel
from tessera.settings.losses.base import Loss
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.missing import Missing
from tessera.settings.references import named
from tessera.settings.systems.base import System, TrainedSystem
from tessera.settings.training import Training


class Run(Settings):
    """One training, with every default resolved: what the train rule carries in its params."""

    system: str
    recommender: str
    seed: int
    method: System
    backbone: Backbone | None = None
    model: LanguageModel | None = None
    """The language model of a system that has one."""
    loss: Loss = Field(default_factory=CrossEntropy)
    training: Training = Field(default_factory=Training)
    mask_seen: bool = True
    """As in `evaluation`: validation, which stops training, masks what the test masks."""
    repeat_targets: RepeatTargets = "miss"
    """As in `evaluation`."""
    tables: list[str] = Field(default_factory=list)
    """Item tables that are read, in the order of the run's inputs."""
    missing: Missing | None = None
    """Pictures or texts that are lost."""
    modalities: dict[str, list[str]] = Field(default_factory=dict)
    """What the tables are made from, where something is lost or the system asks."""
    members: list[Run] = Field(default_factory=list)
    """The runs that an ensemble is made of."""
    chosen: dict[str, Any] = Field(default_factory=dict)
    """Settings that a search chose for it, by their paths in the config."""
    remarks: list[str] = Field(default_factory=list)
    """What every table that shows the run says about it."""

    @property
    def path(self) -> str:
        """Folder of the run below `runs/` of a dataset."""
        return f"{self.system}/{self.recommender}/seed-{self.seed}"

    def on(self, device: str) -> Run:
        """The same on another device, its members too."""
        members = [member.on(device) for member in self.members]
        return self.model_copy(
            update={"training": self.training.model_copy(update={"device": device}), "members": members}
        )

    @property
    def row(self) -> str:
        """What tables call it."""
        return f"{self.system}/{self.recommender}"

    @property
    def takes_new(self) -> bool:
        """Whether items that came after training can be scored; of several members, whether all can."""
        return all(member.takes_new for member in self.members) if self.members else self.method.takes_new

    def named(self, section: str) -> list[str]:
        """The names of a section of the config that it holds, itself or by its members, each once."""
        every = [*named(self.method, section), *(name for member in self.members for name in member.named(section))]
        return list(dict.fromkeys(every))

    @property
    def apart_from_losses(self) -> str:
        """What two runs have in common that differ in what they lost alone, and in name, seed and remarks."""
        rest = self.identity()
        for key in ("system", "seed", "missing", "modalities", "remarks"):
            del rest[key]
        # where and how often a system runs makes no other system of it
        for key in ("missing", "backbones", "seeds"):
            rest["method"].pop(key, None)
        return identity(json.dumps(rest, sort_keys=True))

    @property
    def heuristic(self) -> bool:
        """Fitted by counting: one run, whatever the seed."""
        return not isinstance(self.method, TrainedSystem)
