"""Settings of an ensemble: trained systems side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator

from tessera.settings.base import aside, did_you_mean
from tessera.settings.references import BackboneName, ReadRun, SystemName, named
from tessera.settings.systems.base import SystemSettings, TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Member(ReadRun):
    """A trained run that stands beside others."""

    system: SystemName
    """A trained system; it is trained first."""
    backbone: BackboneName | None = None
    """The backbone under which it is trained; null takes the one that it has, where it has one."""
    seed: int | None = Field(None, ge=0)
    """The seed under which it is trained; null takes that of the ensemble."""

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
        trained = [name for name, one in config.systems.items() if _can_be_member(one)]
        under = system.under(config)
        if not _can_be_member(system):
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


class _OrText:
    """Annotation of what may be written as a text, too, for editors."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "string"}]}


def _can_be_member(system: SystemSettings) -> bool:
    return isinstance(system, TrainedSystem) and not system.COMBINES


class EnsembleSystem(TrainedSystem):
    """Trained systems side by side: a weighted sum of their log-probabilities. It trains nothing itself."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.ensemble:Ensemble"
    COMBINES: ClassVar[bool] = True
    KNOWS_MODALITIES: ClassVar[bool] = True  # as its members may
    recommender: Literal["ensemble"] = "ensemble"
    members: list[Annotated[Member, _OrText()]] = Field(min_length=2, max_length=100)
    """Trained systems, each as its name, as `NAME/BACKBONE`, or as a map; they are trained first."""
    weights: list[float] | None = None
    """A weight a member, of which only ratios count; null chooses shares on validation once, from equal ones."""
    shares: list[float] = Field(
        default_factory=lambda: [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8], min_length=1
    )
    """What a member's share of the sum is chosen from, one member after the other; the others keep their ratios."""
    rounds: int = Field(3, ge=1, le=100)
    """Most passes over the members while shares are chosen; one that changes nothing is the last."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ValueError(f"weights: expected one a member, {len(self.members)} (got {len(self.weights)})")
            if min(self.weights) < 0 or not any(self.weights):
                raise ValueError(f"weights: none is below 0, and one is above (got {self.weights})")
        if wrong := [share for share in self.shares if not 0 <= share < 1]:
            raise ValueError(f"shares: each is at least 0 and below 1 (got {wrong[0]:g})")
        return self

    def item_tables(self, config: Config) -> list[str]:
        """Those of its members."""
        systems = [config.systems[member.system] for member in self.members]
        # one that is an ensemble itself is refused, and may be this one
        tables = [table for system in systems if not system.COMBINES for table in system.item_tables(config)]
        return list(dict.fromkeys(tables))

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also how shares are chosen that are given."""
        yield from super().unread()
        if self.weights is not None:
            yield "is read where shares are chosen, and `weights` are given", ("shares", "rounds")

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Members that are not trained, or cannot stand side by side."""
        yield from super().problems(config)
        if self.missing is not None:
            yield "missing", "is said of the members"
        own = {"validation_users", "device", "processes"} | aside(type(config.training))
        for key in sorted(self.training.keys() - own):
            yield f"training.{key}", "is said of the members, which are what is trained"
        named_runs = [member.names(config) for member in self.members]
        seeds = self.seeds or config.experiment.seeds
        for seed in seeds:
            runs = Counter((system, under, seed if own is None else own) for system, under, own in named_runs)
            if twice := [run for run, count in runs.items() if count > 1]:
                yield "members", f"name something twice under seed {seed}: {twice[0][0]!r}"
                break
        if len(seeds) > 1 and all(own is not None for _, _, own in named_runs):
            yield "seeds", f"every member names its own, so that those of {seeds} would give the same; name one"
        for section, what in (("semantic_ids", "semantic IDs"), ("models", "language models")):
            read = [name for member in self.members for name in named(config.systems[member.system], section)]
            names = sorted(set(read))
            if len(names) > 1:
                yield "members", f"read several {what} ({', '.join(names)}); they may share one"
