"""What both forms of I3-MRec say: their modalities, the invariance, and the information bottleneck."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings, Settings, Width
from tessera.settings.references import TableName
from tessera.settings.systems.base import TrainedSystem


class Invariance(Settings):
    """How alike the environments, the single modalities, are made to predict."""

    penalty: Literal["variance", "gradient"] = "variance"
    """The unbiased variance of their risks (V-REx), as in the published code; or the sum of the squares of each
    risk's gradient by a scale of its scores (IRMv1)."""
    weight: float = Field(1.0, gt=0)
    """At its full height, beside the loss of the recommender."""
    warm_up: float = Field(0.05, ge=0, le=1)
    """Share of the longest course that training may take over which the weight rises from 0; 0 begins with all
    of it."""


class Keep(Settings):
    """What the fused vector keeps: an item's vectors under different absences are brought together by contrast."""

    weight: float = Field(1.0e-3, gt=0)
    """Beside the loss of the recommender."""
    temperature: float = Field(0.4, gt=0)
    """Of the cosines."""
    most_items: int = Field(512, ge=2)
    """Items of a step that are contrasted at most; the loss costs the square of them."""


class Compress(Settings):
    """What the fused vector leaves out: a bound of what it tells of each table (CLUB) is made smaller."""

    weight: float = Field(1.0e-5, gt=0)
    """Of the bound in nats, the mean of the modalities, beside the loss of the recommender."""
    hidden: Width = 64
    """Width of the estimators' hidden layer."""
    learning_rate: float = Field(1.0e-3, gt=0)
    """Of the estimators' own optimiser."""
    most_items: int = Field(512, ge=2)
    """Items of a step that are read at most."""


class InvariantModalities(PresetSettings, TrainedSystem):
    """Modalities as environments of one preference, fused by what is there."""

    OFFICIAL: ClassVar[dict[str, Any]] = {
        "pairs": "seven_sixths", "fitted_on": "projections", "divide": "all", "absent": "bias",
        "standardize": False, "adapter": [], "invariance": {"warm_up": 0.0},
    }  # fmt: skip
    HABITS: ClassVar[tuple[str, ...]] = ("pairs", "fitted_on", "divide", "absent")

    text: TableName | None = None
    """Name under `tables`: vectors of the items' texts."""
    image: TableName | None = None
    """Name under `tables`: vectors of the items' pictures."""
    invariance: Invariance | None = Field(default_factory=Invariance)
    """Of the environments; null goes without."""
    environment_weight: float = Field(1.0, ge=0)
    """Weight of the environments' risks, their sum, beside the loss of the recommender."""
    keep: Keep | None = Field(default_factory=Keep)
    """First half of the information bottleneck; null goes without."""
    compress: Compress | None = Field(default_factory=Compress)
    """Second half of the information bottleneck; null goes without."""
    detach: bool = True
    """Keep the fused vectors' losses from the modalities, which then learn from the environments alone, as
    published."""
    adapter: list[Width] = Field(default_factory=list)
    """Hidden widths between each table and item vectors; [] is one linear map, as published."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout on the fused vectors."""
    standardize: bool = True
    """Centre each table and scale it to unit mean square; false brings each of its rows to length one, as published."""
    pairs: Literal["mean", "seven_sixths"] = "mean"
    """What is made of the contrasts of all pairs of absences: the mean, or seven sixths of the sum, as published."""
    fitted_on: Literal["fused", "projections"] = "fused"
    """What CLUB's estimators are fitted on: the vectors that they are asked about, or each modality's own, as
    published: the bound is then none."""
    divide: Literal["available", "all"] = "available"
    """By what the sum over an item's modalities is divided: how many it has, or how many there are, as published."""
    absent: Literal["learned", "bias"] = "learned"
    """What stands for a modality that an item lacks: a learned vector, which the fusion leaves out unless nothing else
    is there; or what a row of zeros is projected to, fused like others, as published."""

    @property
    def modalities(self) -> dict[str, str]:
        """The tables that are read, by modality."""
        named = {"text": self.text, "image": self.image}
        return {modality: table for modality, table in named.items() if table is not None}

    @property
    def takes_new(self) -> bool:
        """Tables say what an item is."""
        return True

    @property
    def knows_ids(self) -> bool:
        """Whether ID vectors are an environment as well."""
        return False

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of several environments where there is one, and of halves of the bottleneck that are left out."""
        yield from super().unread()
        single = len(self.modalities) + self.knows_ids < 2
        if single:
            parts = [key for key in ("invariance", "keep") if getattr(self, key) is not None]
            yield "is of several environments, and a single table is one", (*parts, "pairs")
        elif self.keep is None:
            yield "is of `keep`, which is null", ("pairs",)
        if self.compress is None:
            yield "is of `compress`, which is null", ("fitted_on",)

    @model_validator(mode="after")
    def _reads_something(self) -> InvariantModalities:
        if not self.modalities:
            raise ValueError("needs a table: text or image, one at least; for IDs alone take `items: ids`")
        return self
