"""Settings of a search: which settings are tried, how often, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tessera.settings.base import Seed, Settings, did_you_mean
from tessera.settings.changes import replaced
from tessera.settings.references import SystemName, references, walk
from tessera.settings.systems.backbone import BackboneSystem
from tessera.settings.systems.base import TrainedSystem

if TYPE_CHECKING:
    from tessera.settings.config import Config

HEADS = ("training", "loss", "backbones", "systems")
"""What a path of the space may begin with; behind the last two stands a name."""


class Dimension(Settings):
    """What a setting may be: a number between two ends, or one of several values."""

    low: int | float | None = None
    """The least; with `high`. Two whole numbers as ends give whole numbers."""
    high: int | float | None = None
    """The largest."""
    log: bool = False
    """Draw the logarithm evenly."""
    choices: list[Any] | None = Field(None, min_length=2)
    """The values, each as likely as the others, in place of two ends."""

    @model_validator(mode="after")
    def _is_one(self) -> Dimension:
        ends = (self.low, self.high)
        if self.choices is not None and (ends != (None, None) or self.log):
            raise ValueError("has choices and ends; give one of them")
        if self.choices is None:
            if self.low is None or self.high is None:
                raise ValueError("needs low and high, or choices")
            if not self.low < self.high:
                raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
            if self.log and self.low <= 0:
                raise ValueError(f"low ({self.low}) must be above 0 where the logarithm is drawn")
        return self

    def value(self, at: float) -> Any:
        """The value at a place from 0 to 1 of all."""
        if self.choices is not None:
            return self.choices[min(int(at * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None
        assert self.high is not None
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        low, high = self.low, self.high + whole  # each whole number has a share of its own
        drawn = low * (high / low) ** at if self.log else low + (high - low) * at
        return min(int(drawn), int(self.high)) if whole else float(f"{drawn:.6g}")

    def ends(self) -> list[Any]:
        """Values that must fit for all to fit."""
        return [self.low, self.high] if self.choices is None else self.choices


class Search(Settings):
    """Settings chosen on validation, with as many trials for every system: trial by trial a job of its own."""

    trials: int = Field(20, ge=1, le=100_000)
    """Trainings of every system under every recommender; more of them later go on where fewer ended."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Paths of settings and what they may be: `backbones.sasrec.dropout: {low: 0.0, high: 0.5}`,
    `training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}`, `systems.mine.dim: {choices: [32, 64]}`."""
    systems: list[SystemName] | None = None
    """The systems that are searched; null takes all of the experiment that are trained. Others say that they were
    not."""
    sampler: Literal["random", "sobol"] = "sobol"
    """Where trials lie: drawn each for itself, or spread evenly (a scrambled Sobol sequence)."""
    seed: Seed = 0
    """Seed of the drawing; trials are trained under the first seed of the system."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Systems that are not trained, paths that lead nowhere, values that do not fit, systems without a path."""
        if config.task != "sequential":
            yield "", "click models are not searched"
            return
        compared = [name for name in config.experiment.systems if isinstance(config.systems.get(name), TrainedSystem)]
        for index, name in enumerate(self.systems or []):
            if name not in compared:
                yield (
                    f"systems.{index}",
                    f"{name!r} is no trained system of the experiment{did_you_mean(name, compared)}",
                )
        wrong = False
        for path, dimension in self.space.items():
            for problem in _path_problems(config, path, dimension.ends()):
                wrong = True
                yield f"space.{path}", problem
        if wrong:
            return
        for name in self.systems or compared:
            system = config.systems[name]
            under = [""]
            if isinstance(system, BackboneSystem):
                under = [*(system.backbones or config.experiment.backbones)]
            for backbone in under:
                own_loss = not isinstance(system, BackboneSystem) or system.loss is not None
                if not any(touches(path, name, backbone, own_loss) for path in self.space):
                    row = f"{name}/{backbone}" if backbone else name
                    yield "space", f"holds nothing of {row!r}, which would be trained {self.trials} times alike"


def _section(config: Config, path: str) -> tuple[Settings | None, list[str], str]:
    """The settings that a path leads into, the keys behind them, and what is wrong with its beginning."""
    head, *keys = path.split(".")
    if head not in HEADS:
        return None, keys, f"unknown beginning {head!r}{did_you_mean(head, HEADS)}"
    section = getattr(config, head)
    if head in ("training", "loss"):
        return section, keys, ""
    name = keys[0] if keys else ""
    if name not in section:
        return None, keys, f"unknown name {name!r}{did_you_mean(name, section)}"
    return section[name], keys[1:], ""


def _path_problems(config: Config, path: str, values: Sequence[Any]) -> Iterator[str]:
    settings, keys, wrong = _section(config, path)
    if settings is None or not keys:
        yield wrong or "leads to no key"
        return
    for value in values:
        try:
            changed = replaced(settings, keys, value)
        except ValidationError as error:
            yield f"{value!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            return
        except ValueError as error:
            yield str(error)
            return
        if [*references(changed)] != [*references(settings)]:
            yield f"{value!r} names another part of the config, which would have to be made first; make a system of it"
            return
        # jobs know the code of the kinds that the config names
        if [type(part) for _, part in walk(changed)] != [type(part) for _, part in walk(settings)]:
            yield f"{value!r} is of another kind; make a system of it"
            return


def touches(path: str, system: str, recommender: str, own_loss: bool) -> bool:
    """Whether a path changes the runs of a system under a recommender."""
    head, *keys = path.split(".")
    return {
        "training": True, "loss": not own_loss, "backbones": keys[:1] == [recommender], "systems": keys[:1] == [system],
    }[head]  # fmt: skip
