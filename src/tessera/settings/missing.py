"""Settings of experiments in which items lose their picture or their text: in training, or when they are judged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tessera.settings.base import Seed, Settings, shown_value

if TYPE_CHECKING:
    from tessera.settings.config import Config

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")
"""In the order of their random numbers: one that comes new comes last."""

Pattern = Literal["item_consistent", "one_modality", "feature", "same_rate", "whole_modality", "same_steps", "block"]
"""How losses are drawn. Of items, the same in every history: `item_consistent` (each modality for itself), and
`one_modality` (an affected item loses exactly one of them, uniformly drawn: I3-MRec). Of histories: `feature` (every
position and modality for itself), `same_rate` (the same, at one rate for all modalities), `whole_modality` (a history
loses all of a modality), `same_steps` (all modalities at the same positions) and `block` (all modalities over a
contiguous stretch): CIDer."""
ItemPattern = Literal["item_consistent", "one_modality"]
ITEM_PATTERNS: frozenset[Pattern] = frozenset(get_args(ItemPattern))

Lose = Literal["image", "text", "both"]
LOST: dict[Lose, str] = {"image": "pictures", "text": "texts", "both": "pictures and texts"}
"""What is lost, in words."""


def percent(share: float) -> str:
    """A chosen share with all the digits that were chosen: `0.4%` of 0.004."""
    return f"{100 * share:.10g}%"


class Missing(Settings):
    """Items lose their picture or their text at random, as if they had never had one: no table that was made from it
    has a row of them."""

    pattern: ItemPattern = "item_consistent"
    """`item_consistent`: each of the two for itself, the same in every history; `one_modality`: an item that is hit
    loses exactly one of them, whichever is drawn (`image` and `text` are then the one share of items that are hit).
    Patterns of histories are of `robustness`."""
    image: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their picture."""
    text: float = Field(0.0, ge=0, le=1)
    """Share of the items that lose their text."""
    when: Literal["training", "test", "both"] = "both"
    """Lost while training, when the run is judged (validation included), or always."""
    seed: int = Field(0, ge=0)
    """Which items: those that lose something at one share also lose it at every higher one."""

    @property
    def shares(self) -> dict[Modality, float]:
        """By modality."""
        return {"image": self.image, "text": self.text}

    @property
    def remark(self) -> str:
        """What stands beside every number that was measured so."""
        parts = [
            f"{percent(share)} of the {'pictures' if name == 'image' else 'texts'}"
            for name, share in self.shares.items()
            if share
        ]
        when = {"training": ", in training", "test": ", when judged", "both": ""}[self.when]
        if self.pattern == "one_modality":
            parts = [f"the picture or the text of {percent(self.image)} of the items"]
        return f"without {' and '.join(parts)}{when} ({self.pattern})"

    @field_validator("pattern", mode="before")
    @classmethod
    def _of_items(cls, value: Any) -> Any:
        if value in get_args(Pattern) and value not in ITEM_PATTERNS:
            message = "'{pattern}' is a pattern of histories, under which trained runs are judged: robustness.patterns"
            raise PydanticCustomError("of_histories", message, {"pattern": value})
        return value

    @model_validator(mode="after")
    def _one_share(self) -> Missing:
        if self.pattern == "one_modality" and self.image != self.text:
            shares = f"image {self.image:g} and text {self.text:g}"
            raise ValueError(f"one_modality has one share of items that lose either: give both the same (got {shares})")
        return self

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Losses by which no system loses anything; a system of its own `missing` says them itself."""
        if self is not config.missing or config.task == "ctr":
            return
        bare = [name for name in config.experiment.systems if getattr(config.systems[name], "missing", None) is None]
        tables = {table for name in bare for table in config.systems[name].item_tables(config)}
        read = {modality for table in tables for modality in config.tables[table].modalities(config)}
        lost = [modality for modality, share in self.shares.items() if share]
        if lost and not read.intersection(lost):
            made = ", ".join(sorted(read)) or "neither image nor text"
            given = [table for table in sorted(tables) if getattr(config.tables[table], "made_from", None) == []]
            hint = f"; of given vectors say it in tables.{given[0]}.made_from" if given else ""
            why = f"no system reads a table that is made from it (they read what is made from: {made})"
            yield lost[0], f"{why}{hint}"

    def touches(self, made_from: Iterable[Collection[str]]) -> bool:
        """Whether any table loses a row, by what each is made from."""
        lost = {modality for modality, share in self.shares.items() if share}
        return any(lost & set(modalities) for modalities in made_from)


class Robustness(Settings):
    """Trained runs are judged again as more and more is missing: no training is repeated. What training itself went
    without is `missing`."""

    patterns: list[Pattern] = Field(default_factory=lambda: list[Pattern](["item_consistent"]), min_length=1)
    """How losses are drawn: `item_consistent` and `one_modality` of items; `feature`, `same_rate`, `whole_modality`,
    `same_steps` and `block` of histories, whose candidates stay whole (docs/missing.md)."""
    lose: list[Lose] = Field(default_factory=lambda: list[Lose](["both"]), min_length=1)
    """What is lost: `image`, `text` or `both`; a curve each."""
    rates: list[float] = Field(default_factory=lambda: [step / 10 for step in range(11)])
    """Missing rates, from 0 to 1; what is lost at one is lost at every higher one."""
    seed: Seed = 0
    """Of the draws; item patterns draw as `missing` of the same seed does."""

    @field_validator("rates")
    @classmethod
    def _from_nothing_to_all(cls, values: list[float]) -> list[float]:
        if any(not 0 <= value <= 1 for value in values):
            raise ValueError(f"rates lie from 0 to 1 (got {next(v for v in values if not 0 <= v <= 1):g})")
        if values != sorted(set(values)) or not values or values[0] != 0 or values[-1] != 1:
            expected = "expected ascending rates from 0 to 1, e.g. [0, 0.5, 1]: the area under them is told"
            raise ValueError(f"{expected} (got {shown_value(values)})")
        return values

    @property
    def curves(self) -> list[tuple[Pattern, Lose]]:
        """Each pattern with what is lost under it; `one_modality` needs both."""
        return [(p, lose) for p in self.patterns for lose in self.lose if p != "one_modality" or lose == "both"]

    @property
    def modalities(self) -> set[Modality]:
        """Whatever is lost."""
        return {modality for lose in self.lose for modality in modalities(lose)}

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """What nothing reads, what stands twice, and systems that cannot be judged under a pattern."""
        if config.task == "ctr":
            yield "", "click models read no item tables, so nothing can be missing"
            return
        for key, values in (("patterns", self.patterns), ("lose", self.lose)):
            if twice := [value for number, value in enumerate(values) if value in values[:number]]:
                yield key, f"names something twice: {twice[0]!r}"
        if "one_modality" in self.patterns and "both" not in self.lose:
            yield "lose", "the pattern one_modality takes one of both: add 'both'"
        read: dict[str, set[str]] = {}
        for name in config.experiment.systems:
            tables = config.systems[name].item_tables(config)
            read[name] = {modality for table in tables for modality in config.tables[table].modalities(config)}
        known = set().union(*read.values())
        one = "one_modality" in self.patterns and "both" in self.lose and bool(known)  # which asks for both
        for modality in sorted(set() if one else self.modalities - known):
            made = ", ".join(sorted(known)) or "neither image nor text"
            yield "lose", f"no system reads a table that is made from {modality} (they read what is made from: {made})"
        of_histories = [pattern for pattern in self.patterns if pattern not in ITEM_PATTERNS]
        for name, modalities_read in read.items():
            if of_histories and modalities_read & self.modalities and not config.systems[name].HISTORY_LOSSES:
                yield (
                    f"patterns.{self.patterns.index(of_histories[0])}",
                    f"{of_histories[0]!r} is drawn anew for every history, but systems.{name} does not read histories "
                    f"by item vectors alone; take {' or '.join(sorted(ITEM_PATTERNS))}, or leave it out",
                )


def modalities(lose: Lose) -> tuple[Modality, ...]:
    """What goes under a name of losses."""
    return MODALITIES if lose == "both" else (lose,)


def at_rate(pattern: ItemPattern, lose: Lose, rate: float, seed: int) -> Missing:
    """What items lose when a run is judged at a rate."""
    shares = dict.fromkeys(modalities(lose), rate)
    return Missing.model_validate({"pattern": pattern, "when": "test", "seed": seed, **shares})
