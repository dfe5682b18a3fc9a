"""Settings of an ensemble: trained systems side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tessera.settings.base import aside
from tessera.settings.references import named
from tessera.settings.systems.base import TrainedSystem
from tessera.settings.trained_run import NamedRun, OrText

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Member(NamedRun):
    """A trained run that stands beside others."""

    seed: int | None = Field(None, ge=0)
    """The seed under which it is trained; null takes that of the ensemble."""


class EnsembleSystem(TrainedSystem):
    """Trained systems side by side: a weighted sum of their log-probabilities. It trains nothing itself."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.ensemble:Ensemble"
    COMBINES: ClassVar[bool] = True
    KNOWS_MODALITIES: ClassVar[bool] = True  # as its members may
    recommender: Literal["ensemble"] = "ensemble"
    members: list[Annotated[Member, OrText()]] = Field(min_length=2, max_length=100)
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
