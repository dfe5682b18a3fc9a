"""What every system may say: what is compared, whatever learns in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tessera.settings.base import ASIDE, Seeds
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.missing import Missing
from tessera.settings.references import named
from tessera.settings.training import override_problems

if TYPE_CHECKING:
    from tessera.settings.config import Config


class SystemSettings(Kind):
    """A system: what is compared with others. One that is fitted by counting runs once, whatever the seed."""

    ONLY_JUDGED: ClassVar[bool] = False
    """Whether nothing can be asked of it but its ranks of the test users: it reads no histories."""

    KNOWS_MODALITIES: ClassVar[bool] = False
    """Whether it asks what its tables are made from, though nothing be lost."""

    CHANGES_AT_THE_END: ClassVar[bool] = False
    """Whether something is set after the last epoch that the validation of no epoch has seen."""
    COMBINES: ClassVar[bool] = False
    """Whether it is made of other runs (`Run.members`), which are trained first."""

    HISTORY_LOSSES: ClassVar[bool] = False
    """Whether its `users` reads the items of a history by `Catalogue.read` alone, so that a position can be given the
    vector of an item that lost something there (`robustness`)."""

    recommender: str
    """What it is."""

    def source(self, dataset: str, seed: int) -> str | None:
        """The path of a file that it reads besides what the plan knows; the job that makes it has it as `source`.

        Of a class from outside it is the key `path`, where there is one.
        """
        own: str | None = getattr(self, "path", None)
        return own if "path" in super().named_files() and isinstance(own, str) else None

    def named_files(self) -> dict[str, list[str]]:
        """See `Settings.named_files`; of one `path` `source` tells."""
        named = super().named_files()
        return {key: files for key, files in named.items() if key != "path" or not isinstance(self.__dict__[key], str)}

    def under(self, config: Config) -> list[str]:
        """The backbones under which it runs; none where it brings its own network, or has none."""
        return []

    @property
    def label(self) -> str:
        """What tables and folders call it: its tag; of one from outside of the package, the name of its class."""
        return self.recommender.rpartition(":")[2]

    def item_tables(self, config: Config) -> list[str]:
        """The item tables that it reads."""
        return named(self, "tables")

    @property
    def takes_new(self) -> bool:
        """Whether items that came after training can be scored, by what tables say of them (`add_items`)."""
        return False


class TrainedSystem(SystemSettings):
    """A system that is trained, once a seed."""

    FREE: ClassVar[frozenset[str]] = frozenset({"training", "seeds", "missing", "preset"})

    LEAVES_OUT_COLD: ClassVar[bool] = False
    """Whether a network with a loss of its own leaves items without a training interaction out of it on demand."""

    training: Annotated[dict[str, Any], ASIDE] = Field(default_factory=dict)
    """Keys of `training` that differ for this system."""
    seeds: Annotated[Seeds | None, ASIDE] = None
    """Only these seeds; null takes the experiment's."""
    missing: Annotated[Missing | None, ASIDE] = None
    """Pictures or texts that this system goes without; null takes the experiment's `missing`."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also keys of `training` that are none, losses of what no table was made from."""
        yield from super().problems(config)
        yield from override_problems(config.training, self.training)
        tables = [config.tables[name] for name in self.item_tables(config) if name in config.tables]
        read = {modality for table in tables for modality in table.modalities(config)}
        if self.missing is not None and self.missing.pattern == "one_modality" and read:
            return
        for modality, share in (self.missing.shares if self.missing else {}).items():
            if share and modality not in read:
                made = ", ".join(sorted(read)) or "neither image nor text"
                yield f"missing.{modality}", f"no table that it reads is made from it (they are made from: {made})"


System = Annotated[SystemSettings, KindOf("systems")]
