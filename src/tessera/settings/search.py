"""Settings of a search: which settings are tried, how often, and for whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from tessera.settings.base import Seed, Settings, did_you_mean, each_once, expectation
from tessera.settings.changes import HEADS, below, replaced
from tessera.settings.kinds import Kind
from tessera.settings.references import SystemName, references, walk
from tessera.settings.systems.backbone_base import UnderBackbones
from tessera.settings.systems.base import SystemSettings, TrainedSystem
from tessera.settings.training import LoopSettings
from tessera.settings.unread import unread_keys

if TYPE_CHECKING:
    from tessera.settings.config import Config

LEARNING = ("tpe", "gp")
"""Samplers of Optuna, which learn from the trials of earlier rounds."""

_FIXED = {
    "training": {"warm_start", "device", "processes", "validation_users", *LoopSettings.model_fields},
    "method": {"backbones", "missing", "preset", "seeds"},
    "backbone": {"preset"},
}
"""Keys that no trial may change: what a job reads, where it runs, which runs there are, or what changes no result."""

_MOST_CHECKED = 1000
"""Whole numbers of a dimension that are all tried on the settings before the run."""


def each_apart(values: list[Any]) -> list[Any]:
    """A check of settings: no two are equal and of one type (false and 0 are two choices).

    Raises:
        ValueError: two are.
    """
    for number, value in enumerate(values):
        if any(type(other) is type(value) and other == value for other in values[:number]):
            raise ValueError(f"holds {value!r} twice: {values}")
    return values


class Dimension(Settings):
    """What a setting may be: a number between two ends, or one of several values."""

    low: int | float | None = None
    """The least; with `high`. Two whole numbers as ends give whole numbers."""
    high: int | float | None = None
    """The largest."""
    log: bool = False
    """Draw the logarithm evenly."""
    choices: Annotated[list[Any], Field(min_length=2), AfterValidator(each_apart)] | None = None
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
        return min(math.floor(drawn), int(self.high)) if whole else self.rounded(drawn)

    def rounded(self, drawn: float) -> float:
        """Six digits of a drawn value, within the ends: only they were tried on the settings."""
        assert self.low is not None
        assert self.high is not None
        return float(min(max(float(f"{drawn:.6g}"), self.low), self.high))

    def checked(self) -> Sequence[Any]:
        """Values that are tried on the settings before the run: all choices and whole numbers, else the two ends."""
        if self.choices is not None:
            return self.choices
        if isinstance(self.low, int) and isinstance(self.high, int) and self.high - self.low < _MOST_CHECKED:
            return range(self.low, self.high + 1)
        return [self.low, self.high]


class Asking(Settings):
    """What the values of a round of trials depend on, besides the trials before it."""

    space: dict[str, Dimension]
    sampler: str
    seed: int
    round: int


class Search(Settings):
    """Settings chosen on validation, with as many trials for every system: trial by trial a job of its own."""

    trials: int = Field(20, ge=1, le=100_000)
    """Trials of every system under every recommender; more of them later go on where fewer ended."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Paths of settings and what they may be: `backbones.sasrec.dropout: {low: 0.0, high: 0.5}`,
    `training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}`, `systems.mine.dim: {choices: [32, 64]}`."""
    systems: Annotated[list[SystemName], Field(min_length=1), AfterValidator(each_once)] | None = None
    """The systems that are searched; null takes all of the experiment that are trained, and heuristics that the space
    names. Others say that they were not."""
    sampler: Literal["random", "sobol", "tpe", "gp"] = "sobol"
    """Where trials lie: drawn each for itself, spread evenly (a scrambled Sobol sequence), or where a sampler of Optuna
    expects most after the rounds before: tree-structured Parzen estimators or a Gaussian process (extra `optuna`)."""
    round: int = Field(5, ge=1)
    """Trials that run beside one another under `tpe` and `gp`, which learn from all rounds before; the first round is
    of the Sobol sequence."""
    seed: Seed = 0
    """Seed of the drawing; trials are trained under the first seed of the system."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of rounds that nothing is learned from."""
        yield from super().unread()
        if self.sampler not in LEARNING:
            yield f"is of samplers {' and '.join(LEARNING)}, and {self.sampler} learns from no trial", ("round",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Systems that are not trained, paths that lead nowhere, values that do not fit, systems without a path."""
        if config.task != "sequential":
            yield "", "click models are not searched"
            return
        known = {name: config.systems[name] for name in config.experiment.systems if name in config.systems}
        compared = [name for name, system in known.items() if searchable(system)]
        for index, name in enumerate(self.systems or []):
            if name not in compared:
                yield (
                    f"systems.{index}",
                    f"{name!r} is no system of the experiment that has settings to search"
                    f"{did_you_mean(name, compared)}",
                )
        wrong = False
        for path, dimension in self.space.items():
            beside = any(_parent(other) == _parent(path) for other in self.space.keys() - {path})
            for problem in _path_problems(config, path, dimension.checked(), beside):
                wrong = True
                yield f"space.{path}", problem
        if wrong:
            return
        for name in self.systems or [
            name for name in compared if isinstance(known[name], TrainedSystem) and searchable(known[name])
        ]:
            system = config.systems[name]
            for backbone in system.under(config) or [""]:
                if not any(touches(path, name, backbone, system) for path in self.space):
                    row = f"{name}/{backbone}" if backbone else name
                    yield "space", f"holds nothing of {row!r}, which would be made {self.trials} times alike"
        rows = [
            (name, recommender, config.systems[name])
            for name in self.systems or compared
            for recommender in config.systems[name].under(config) or [""]
        ]
        for path in self.space:
            if not any(touches(path, *row) for row in rows):
                yield f"space.{path}", "no system that is searched reads it; leave it out"


def _section(config: Config, path: str) -> tuple[str, Settings | None, list[str], str]:
    """The field of a run that a path leads into, its settings, the keys behind them, and what is wrong with its
    beginning."""
    head, *keys = path.split(".")
    if head not in HEADS:
        return head, None, keys, f"unknown beginning {head!r}{did_you_mean(head, HEADS)}"
    section = getattr(config, head)
    name = keys[0] if keys else ""
    if head in ("training", "loss"):
        own = section
    elif name not in section:
        return head, None, keys, f"unknown name {name!r}{did_you_mean(name, section)}"
    else:
        own = section[name]
    field, keys = below(path, own)
    if field == "training":
        own = config.training
    elif field == "loss":
        own = getattr(own, "loss", None) or config.loss
    return field, own, keys, ""


def _parent(path: str) -> str:
    """The path of the settings that hold a key."""
    return path.rpartition(".")[0]


def _path_problems(config: Config, path: str, values: Sequence[Any], beside: bool) -> Iterator[str]:
    """What is wrong with values of a path; `beside` says that keys of the same settings are searched, too."""
    field, settings, keys, wrong = _section(config, path)
    if settings is None or not keys:
        yield wrong or "leads to no key"
        return
    head, name, *_ = path.split(".")
    if head == "systems" and not searchable(config.systems[name]):
        yield f"nothing of {name!r} is searched: it is not trained, or its members are"
        return
    if keys[0] in _FIXED.get(field, ()):
        yield f"{keys[0]!r} is the same for all trials; make a system of each value"
        return
    searched = {".".join(keys[: number + 1]) for number in range(len(keys))}
    for value in values:
        try:
            changed = replaced(settings, keys, value)
        except ValidationError as error:
            yield f"{value!r}: {expectation(error.errors()[0], value)}"
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
        if not isinstance(changed, Kind):
            continue
        problems = [*changed.problems(config)]
        if not beside:  # what nothing reads beside this value alone may be read beside others of the space
            problems += [(key.path, key.text) for key in unread_keys(changed) if key.said and key.path in searched]
        for key, problem in problems:
            yield f"{value!r}: {key}: {problem}"
            return


def searchable(system: SystemSettings) -> bool:
    """Whether a system has settings that a search could choose: all that are trained, and heuristics with keys.

    One that is made of other runs has none: its members are searched.
    """
    if system.COMBINES:
        return False
    own = type(system).model_fields.keys() - SystemSettings.model_fields.keys()
    return isinstance(system, TrainedSystem) or (bool(own) and not system.ONLY_JUDGED)


def touches(path: str, name: str, recommender: str, system: SystemSettings) -> bool:
    """Whether a path changes the runs of a system (`name`, with its settings) under a recommender."""
    head, *keys = path.split(".")
    if head == "systems":
        return keys[:1] == [name]
    if not isinstance(system, TrainedSystem):
        return False
    common_loss = isinstance(system, UnderBackbones) and system.loss is None
    common_loss |= system.LEAVES_OUT_COLD and keys == ["cold_items"]
    return {"training": True, "loss": common_loss, "backbones": keys[:1] == [recommender]}[head]
