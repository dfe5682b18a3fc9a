"""A trained run as a config names it: NAME, NAME/BACKBONE, or a map with its seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, GetJsonSchemaHandler, model_validator

from tessera.settings.base import did_you_mean
from tessera.settings.references import BackboneName, ReadRun, SystemName
from tessera.settings.systems.base import SystemSettings, TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config


class NamedRun(ReadRun):
    """A trained run that another one reads."""

    COMBINED: ClassVar[bool] = False
    """Whether it may be made of other runs itself."""

    system: SystemName
    """A trained system; it is trained first."""
    backbone: BackboneName | None = None
    """The backbone under which it is trained; null takes the one that it has, where it has one."""
    seed: int | None = Field(None, ge=0)
    """The seed under which it is trained; null takes that of the run that reads it."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        system, _, backbone = value.partition("/")
        return {"system": system, **({"backbone": backbone} if "/" in value else {})}

    def names(self, config: Config) -> tuple[str, str | None, int | None]:
        """See `ReadRun.names`."""
        under = config.systems[self.system].under(config)
        return self.system, self.backbone or (under[0] if under else None), self.seed

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A system of which there is no such run."""
        system = config.systems[self.system]
        trained = [name for name, one in config.systems.items() if self._fits(one)]
        under = system.under(config)
        if not self._fits(system):
            what = "is an ensemble itself" if system.COMBINES else "is not trained"
            yield "system", f"{self.system!r} {what}{did_you_mean(self.system, trained)}"
        elif self.backbone is None and len(under) > 1:
            yield (
                "backbone",
                f"{self.system!r} runs under {', '.join(under)}; name one: {self.system}/{under[0]}",
            )
        elif self.backbone is not None and not under:
            yield "backbone", f"{self.system!r} brings its own network, and runs under no backbone"
        elif self.backbone is not None and self.backbone not in under:
            yield "backbone", f"{self.system!r} runs under {', '.join(under)}; add {self.backbone!r} to its `backbones`"

    def _fits(self, system: SystemSettings) -> bool:
        return isinstance(system, TrainedSystem) and (self.COMBINED or not system.COMBINES)


class OrText:
    """Annotation of what may be written as a text, too, for editors."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "string"}]}
