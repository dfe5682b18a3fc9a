"""Settings of knowledge distillation: a network that learns from a finished run beside its training histories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.references import ReadRun, named, walk
from tessera.settings.systems.backbone import BackboneSystem
from tessera.settings.systems.backbone_base import UnderBackbones
from tessera.settings.systems.base import SystemSettings
from tessera.settings.trained_run import NamedRun, OrText

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Teacher(NamedRun):
    """A trained run that says of every training target which items are likely; it may be an ensemble."""

    COMBINED: ClassVar[bool] = True


class DistilledSystem(BackboneSystem):
    """A system under a backbone that learns from the scores of a finished run, too: one network in place of several."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.distilled:Distilled"
    FREE: ClassVar[frozenset[str]] = BackboneSystem.FREE | {"teacher", "kept"}

    recommender: Literal["distilled"] = "distilled"  # type: ignore[assignment]
    teacher: Annotated[Teacher, OrText()]
    """A trained system as its name, as `NAME/BACKBONE`, or as a map; it is trained first. Several networks teach as an
    ensemble."""
    weight: float = Field(0.5, gt=0, le=1)
    """Share of the teacher's probabilities in what the network learns; the target has the rest. 1 learns from the
    teacher alone."""
    teacher_temperature: float = Field(1.0, gt=0)
    """What the logarithms of the teacher's probabilities are divided by."""
    kept: int = Field(64, ge=1, le=10_000)
    """The likeliest items of every training target that are kept, at 8 bytes each; what they leave is spread over the
    catalogue as it is on average."""

    def item_tables(self, config: Config) -> list[str]:
        """Its own, and those of the runs that teach it, which are read while it is trained."""
        systems = [self, *_behind(self, config)]
        return list(dict.fromkeys(table for system in systems for table in named(system, "tables")))

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also a teacher that cannot be asked, and losses and backbones that cannot learn from one."""
        behind, whole = _behind(self, config), self._whole(config)
        if any(one is whole for one in behind):
            yield "teacher", f"{self.teacher.system!r} learns from this system itself"
            return
        yield from super().problems(config)
        loss = whole.loss or config.loss
        if not isinstance(loss, CrossEntropy):
            yield "loss", f"{loss.kind} compares a target with some items; a teacher needs cross_entropy, over all"
        if getattr(self.items, "align", None) is not None:
            yield "items.align", "reads a trained run beside the teacher; one of them can be read"
        for name in self.under(config):
            if name in config.backbones and not config.backbones[name].causal_states:
                yield "backbones", f"{name!r} looks both ways along a history; a causal one is needed here"
        for section, what in (("semantic_ids", "semantic IDs"), ("models", "a language model")):
            own = named(self, section)
            if others := [name for system in behind for name in named(system, section) if name not in own]:
                yield "teacher", f"reads {what} ({others[0]}) that this system does not read; teach by another one"

    def _whole(self, config: Config) -> UnderBackbones:
        """The system of the config that this is, or that it is the base of."""
        systems = (one for one in config.systems.values() if isinstance(one, UnderBackbones))
        return next((one for one in systems if getattr(one, "base", None) is self), self)

    def remarks(self) -> list[str]:
        """Whose scores it has learned from, at a cost of their own."""
        return [f"taught by {self.teacher.system}"]


def _behind(system: SystemSettings, config: Config) -> list[SystemSettings]:
    """The systems whose runs a system reads, itself or through others; itself among them if they read it."""
    behind = list[SystemSettings]()
    waiting: list[SystemSettings] = [system]
    while waiting:
        for _, part in walk(waiting.pop()):
            if isinstance(part, ReadRun):
                name, _, _ = part.names(config)
                other = config.systems[name]
                if not any(other is one for one in behind):
                    behind.append(other)
                    waiting.append(other)
    return behind
