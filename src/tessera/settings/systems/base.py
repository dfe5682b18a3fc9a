"""What every system may say: what is compared, whatever learns in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from tessera.settings.base import Seed
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.references import named
from tessera.settings.training import override_problems

if TYPE_CHECKING:
    from tessera.settings.config import Config


class SystemSettings(Kind):
    """A system: what is compared with others. One that is fitted by counting runs once, whatever the seed."""

    recommender: str
    """What it is."""

    @property
    def label(self) -> str:
        """What tables and folders call it: its tag; of one from outside of the package, the name of its class."""
        return self.recommender.rpartition(":")[2]

    def item_tables(self, config: Config) -> list[str]:
        """The item tables that it reads."""
        return named(self, "tables")


class TrainedSystem(SystemSettings):
    """A system that is trained, once a seed."""

    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of `training` that differ for this system."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Only these seeds; null takes the experiment's."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Keys of `training` that are none, and seeds that stand twice."""
        yield from override_problems(config.training, self.training)
        if len(set(self.seeds or [])) < len(self.seeds or []):
            yield "seeds", f"names something twice: {self.seeds}"


System = Annotated[SystemSettings, KindOf("systems")]
