"""Settings of TPAD-style session recommendation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Settings, Width
from tessera.settings.references import TableName
from tessera.settings.systems.backbone_base import UnderBackbones


class Estimator(Settings):
    """The conditional laws that the upper bounds ask, fitted in turn by an optimiser of their own."""

    hidden: Width = 64
    """Width of their hidden layers."""
    learning_rate: float = Field(3.0e-3, gt=0)
    """Of their optimiser: they have to follow the heads."""


class Disentangling(Settings):
    """Knowledge features taken apart into what tells of transitions and what does not."""

    width: Width = 64
    """Width of what does not tell of transitions; what does is as wide as the transfer features."""
    hidden: Width = 128
    """Width of the hidden layer of each head, and of the decoder."""
    steps: int = Field(600, ge=1)
    """Optimisation steps, each over some items that have both features."""
    items: int = Field(256, ge=2)
    """Items of a step, at most."""
    learning_rate: float = Field(1.0e-3, gt=0)
    """Of the heads and the decoder."""
    temperature: float = Field(0.1, gt=0)
    """Of the cosines of the lower bound."""
    lower: float = Field(1.0, ge=0)
    """Weight of the lower bound (InfoNCE) of what the relevant part tells of the transfer features, which is raised."""
    upper: float = Field(0.1, ge=0)
    """Weight of the upper bounds (CLUB) of what the irrelevant part tells of the transfer features and of the relevant
    part, which are lowered."""
    mmd: float = Field(0.1, ge=0)
    """Weight of the discrepancy of relevant parts and transfer features as clouds."""
    reconstruction: float = Field(1.0, ge=0)
    """Weight of the squared error of the knowledge feature that a decoder makes of both parts."""
    estimator: Estimator = Field(default_factory=Estimator)
    """What the upper bounds ask."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of bounds whose weight is 0."""
        yield from super().unread()
        if not self.lower:
            yield "is of the lower bound, whose weight is 0", ("temperature",)
        if not self.upper:
            yield "is of the upper bounds, whose weight is 0", ("estimator",)

    @model_validator(mode="after")
    def _something_is_learned(self) -> Disentangling:
        if not (self.lower or self.upper or self.mmd or self.reconstruction):
            raise ValueError("all weights are 0: nothing would be learned; take features: side_by_side")
        return self


class TPADSystem(UnderBackbones):
    """Knowledge of items, taken apart by what sessions say of their transitions, beside IDs (TPAD-style)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.tpad:TPAD"
    recommender: Literal["tpad"] = "tpad"
    text: TableName | None = None
    """Name under `tables`: knowledge features of the items' texts."""
    image: TableName | None = None
    """Name under `tables`: knowledge features of the items' pictures."""
    transfer: TableName | None = None
    """Name under `tables`: transfer features, a row an item; null takes the mean, over an item's training occurrences,
    of the states of a model of IDs that is trained first, under the same backbone."""
    generation: bool = True
    """Train that model to say the next item; false takes it as it was initialised (an ablation)."""
    features: Literal["distilled", "side_by_side", "knowledge", "transfer"] = "distilled"
    """What stands beside an item's ID: both parts of the knowledge taken apart; knowledge and transfer features as they
    are; or one of the two alone. The last three are ablations."""
    disentangling: Disentangling = Field(default_factory=Disentangling)
    """How knowledge is taken apart (`features: distilled`)."""

    @property
    def modalities(self) -> dict[str, str]:
        """The tables of knowledge features, by modality."""
        named = {"text": self.text, "image": self.image}
        return {modality: table for modality, table in named.items() if table is not None}

    @property
    def reads_transfer(self) -> bool:
        """Whether transfer features are read at all."""
        return self.features != "knowledge"

    @property
    def takes_new(self) -> bool:
        """Where knowledge alone says what stands beside an ID."""
        return self.features in ("distilled", "knowledge")

    @model_validator(mode="after")
    def _fits(self) -> TPADSystem:
        if not self.modalities and self.features != "transfer":
            raise ValueError("needs a table: text or image, one at least; for IDs alone take `items: ids`")
        if self.features == "knowledge" and (self.transfer is not None or not self.generation):
            key = "transfer" if self.transfer is not None else "generation"
            raise ValueError(
                f"{key} is said of transfer features, which features: knowledge does not read; leave it out"
            )
        if not self.generation and self.transfer is not None:
            raise ValueError("generation: false is said of the model of IDs, but transfer features come from a table")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also how something is taken apart that is not."""
        yield from super().unread()
        if self.features != "distilled":
            yield f"is of features: distilled, and they are {self.features}", ("disentangling",)

    def remarks(self) -> list[str]:
        """Of the paper the abstract alone was to be had."""
        return ["TPAD-style, a reconstruction: its method section was not to be had"]
