"""Settings of CIDer-style robustness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tessera.settings.base import Settings
from tessera.settings.items.base import ItemEncoder, written_out
from tessera.settings.missing import Pattern
from tessera.settings.systems.backbone_base import UnderBackbones

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Damage(Settings):
    """What the damaged pass of a training step goes without."""

    pattern: Pattern = "item_consistent"
    """How losses are drawn, anew every step; those of items are the same in all histories of a step."""
    rate: float | None = Field(None, ge=0, le=1)
    """Share that is lost; null draws it, for each history and modality."""
    concentration: float = Field(1.0, gt=0)
    """Rates are drawn from Beta(c, c): 1 is uniform from 0 to 1, more keeps them near a half."""
    histories: float = Field(0.6, gt=0, le=1)
    """Share of a step's histories that are read again, damaged. They are the first ones, which are a little longer: a
    step holds histories of like length, sorted."""
    candidates: float = Field(0.25, ge=0, le=1)
    """Share of the items that may be damaged where they are scored, drawn anew every step; they lose what rates of the
    step say. 0 scores all whole; each one damaged has to be made."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also how rates are drawn that are given."""
        yield from super().unread()
        if self.rate is not None:
            yield "is of rates that are drawn, and rate is given", ("concentration",)


class Distillation(Settings):
    """Weights of the losses that the damaged pass brings, beside the loss of the whole one; 0 leaves a part out."""

    recommendation: float = Field(1.0, ge=0)
    """The loss of the recommender in the damaged pass."""
    representation: float = Field(0.3, ge=0)
    """1 - cosine of the states of both passes, the mean over positions."""
    attention: float = Field(0.1, ge=0)
    """Divergence of the last layer's attention, the mean over heads and positions; nothing without attention."""
    reconstruction: float = Field(0.1, ge=0)
    """Smooth L1 between what was taken away and what a linear map of the damaged state says of it."""
    scores: float = Field(0.1, ge=0)
    """Divergence of the scores of some items, times the squared temperature."""
    temperature: float = Field(2.0, gt=0)
    """Of the scores that are compared."""
    scored_items: int = Field(256, ge=2)
    """Items whose scores are compared, drawn anew every step; a catalogue of no more is compared whole."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of scores that are not compared."""
        yield from super().unread()
        if not self.scores:
            yield "is of scores that are compared, whose weight is 0", ("temperature", "scored_items")

    @property
    def used(self) -> bool:
        """Whether there is a damaged pass at all."""
        return bool(self.recommendation or self.representation or self.attention or self.reconstruction or self.scores)


class Popularity(Settings):
    """Popularity as a confounder of histories and targets, which training accounts for and scoring goes without."""

    adjustment: Literal["logit", "bins"] = "logit"
    """`logit`: train with the log of an item's share of the training interactions added to its score, score without.
    `bins`: a term of the target's popularity bin in training, its mean over bins when scored."""
    strength: float = Field(0.1, gt=0)
    """Of the logarithm, where 1 takes popularity out of the scores whole, or of the term of the bins."""
    bins: int = Field(10, ge=2, le=1000)
    """Popularity bins of equal shares of the training interactions."""
    width: int = Field(16, ge=1)
    """Width in which bins and items are compared."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of bins that there are none of."""
        yield from super().unread()
        if self.adjustment == "logit":
            yield "is of adjustment bins, and logit has none", ("bins", "width")


class Counterfactual(Settings):
    """What would be recommended by shortcuts alone, which is taken off: s(x) - tau s(x_cf), scores of a user at one
    scale."""

    keep: Literal["shortcuts", "last"] = "shortcuts"
    """What x_cf keeps: of the history those items that popular ones follow more than others, the rest as if nothing
    were known of it; or the last item alone, without a history."""
    tau: float | None = Field(None, ge=0, le=1)
    """How much is taken off; null chooses it on validation once, after training."""
    grid: list[float] = Field(default_factory=lambda: [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0], min_length=1)
    """What tau is chosen from; of equals the smallest."""
    most: int = Field(100, ge=1)
    """Shortcuts at most, the most frequent items first."""
    variation: float = Field(0.1, ge=0)
    """Least coefficient of variation over popularity bins of what follows a shortcut."""
    bins: int = Field(10, ge=2, le=1000)
    """Popularity bins of equal shares of the training interactions."""

    @field_validator("grid")
    @classmethod
    def _shares(cls, value: list[float]) -> list[float]:
        if wrong := [tau for tau in value if not 0 <= tau <= 1]:
            raise ValueError(f"tau is from 0 to 1 (got {wrong[0]})")
        return sorted({0.0, *value})

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also what tau would be chosen from, and which items are shortcuts, where neither is asked."""
        yield from super().unread()
        if self.tau is not None:
            yield "is what tau is chosen from, and tau is given", ("grid",)
        if self.tau == 0:
            yield "is of what is taken off, and tau: 0 takes nothing", ("keep", "most", "variation", "bins")
        elif self.keep == "last":
            yield "is of shortcuts, and keep last keeps the last item whatever it is", ("most", "variation", "bins")


class CIDerSystem(UnderBackbones):
    """Any multimodal item encoder under a causal backbone, trained whole and damaged at once (CIDer-style)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.cider:CIDer"
    FREE: ClassVar[frozenset[str]] = UnderBackbones.FREE | {"damage"}
    HISTORY_LOSSES: ClassVar[bool] = True
    KNOWS_MODALITIES: ClassVar[bool] = True
    recommender: Literal["cider"] = "cider"
    items: ItemEncoder
    """The item encoder that is made robust: `{table: NAME}`, `{kind: dual_view, ...}`, any that reads tables which are
    made from texts or pictures."""
    damage: Damage = Field(default_factory=Damage)
    """What the damaged pass goes without."""
    distillation: Distillation = Field(default_factory=Distillation)
    """What is learned from it."""
    popularity: Popularity | None = Field(default_factory=Popularity)
    """Popularity as a confounder; null leaves it."""
    counterfactual: Counterfactual | None = Field(default_factory=Counterfactual)
    """The counterfactual of shortcuts; null goes without."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "items" in data:
            return {**data, "items": written_out(data["items"])}
        return data

    @property
    def takes_new(self) -> bool:
        """Where an item's content alone says what it is."""
        return self.items.TAKES_NEW

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a damaged pass that there is none of, and of items that it does not score."""
        yield from super().unread()
        used = self.distillation
        if not used.used:
            yield "is of the damaged pass, and the weights of distillation are all 0", ("damage",)
        elif not (used.recommendation or used.scores):
            weights = "distillation.recommendation and scores are 0"
            yield f"is of items that the damaged pass scores, and {weights}", ("damage.candidates",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also items without a modality, items that do not fit a backbone, and backbones that look both ways."""
        yield from super().problems(config)
        used = {name: config.backbones[name] for name in self.under(config) if name in config.backbones}
        yield from ((f"items.{key}" if key else "items", text) for key, text in self.items.misfits(used, config))
        for name, backbone in used.items():
            if not backbone.causal_states:
                yield "backbones", f"{name!r} looks both ways along a history; a causal one is needed here"
        tables = [name for name in self.item_tables(config) if name in config.tables]
        if not tables:
            yield "items", f"{self.items.kind!r} reads no table, so there is nothing that could be lost"
        elif not any(config.tables[name].modalities(config) for name in tables):
            yield (
                "items",
                (
                    f"no table that it reads ({', '.join(map(repr, tables))}) is made from pictures or texts, so "
                    "there is nothing that could be lost; of vectors that exist already say `made_from: [text]`"
                ),
            )

    def remarks(self) -> list[str]:
        """CIDer classifies sentiments; what is here carries its ideas over."""
        return ["CIDer-style: carried over from a classifier of sentiments"]
