"""Settings of FindRec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import Settings, Width
from tessera.settings.references import TableName
from tessera.settings.systems.backbone_base import UnderBackbones

if TYPE_CHECKING:
    from tessera.settings.config import Config


class InformationBottleneck(Settings):
    """Each modality as a normal law an item, drawn towards the standard one."""

    weight: float = Field(1.0e-3, ge=0)
    """Weight of the divergence in nats, the mean of the modalities, beside the loss of the recommender; 0 keeps the
    draws alone, 0.1 (that of third-party code) leaves the modalities next to no information."""


class ScoreFit(Settings):
    """The network that is fitted to the score of the ID states, by denoising score matching."""

    hidden: Width = 128
    """Width of its two hidden layers."""
    noise: float = Field(0.1, gt=0)
    """Standard deviation of what is added to the states, which have unit size an axis."""
    learning_rate: float = Field(1.0e-3, gt=0)
    """Of its own optimiser."""


class StreamAlignment(Settings):
    """How the modalities are drawn to the law of the ID stream."""

    estimator: Literal["ksd", "mmd"] = "ksd"
    """Kernelised Stein discrepancy to a fitted score, or the maximum mean discrepancy to the states themselves."""
    weight: float = Field(0.1, gt=0)
    """Weight of the discrepancy, the mean of the modalities, beside the loss of the recommender."""
    dim: Width = 16
    """Width of the space in which both are compared: a fixed random projection of the states."""
    most_items: int = Field(512, ge=2)
    """Items, and states, of a step that are compared at most; the discrepancy costs the square of them."""
    score: ScoreFit = Field(default_factory=ScoreFit)
    """The score of `ksd`."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a score that is not fitted."""
        yield from super().unread()
        if self.estimator == "mmd":
            yield "is of estimator ksd, and mmd fits none", ("score",)


class FindRecSystem(UnderBackbones):
    """Streams of IDs, texts and pictures, aligned, and mixed by experts that context chooses (FindRec, KDD 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.findrec:FindRec"
    HISTORY_LOSSES: ClassVar[bool] = True
    recommender: Literal["findrec"] = "findrec"
    text: TableName | None = None
    """Name under `tables`: vectors of the items' texts."""
    image: TableName | None = None
    """Name under `tables`: vectors of the items' pictures."""
    width: Width = 64
    """Width of a modality's vectors."""
    heads: int = Field(2, ge=1, le=2**16)
    """Subspaces of them, in each of which modalities read each other and are routed; they divide `width`."""
    bottleneck: InformationBottleneck | None = Field(default_factory=InformationBottleneck)
    """Information bottleneck of each modality; null projects it."""
    alignment: StreamAlignment | None = Field(default_factory=StreamAlignment)
    """Alignment of each modality to the ID stream; null goes without."""
    experts: int = Field(4, ge=1, le=2**10)
    """Experts that the gate chooses among."""
    gate: Literal["context", "mean"] = "context"
    """Weights of the experts by what a position holds and the history before it, or all alike."""
    temperature: float = Field(1.0, gt=0)
    """Of the gate; below 1 it chooses more sharply."""
    balance: float = Field(0.01, ge=0)
    """Weight of the loss that keeps all experts in use."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout in bottlenecks, gate and experts."""
    scoring: Literal["streams", "ids"] = "streams"
    """What a state is compared with: ID vectors plus a linear map of what the modalities say of the item, or ID vectors
    alone, as in third-party code."""
    standardize: bool = True
    """Centre each table and scale it to unit mean square."""

    @property
    def modalities(self) -> dict[str, str]:
        """The tables that are read, by modality."""
        named = {"text": self.text, "image": self.image}
        return {modality: table for modality, table in named.items() if table is not None}

    @model_validator(mode="after")
    def _fits(self) -> FindRecSystem:
        if not self.modalities:
            raise ValueError("needs a table: text or image, one at least; for IDs alone take `items: ids`")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a gate that does not choose."""
        yield from super().unread()
        if self.gate == "mean":
            yield "is of gate context, and gate mean weighs all experts alike", ("temperature", "balance")
        elif self.experts == 1:
            yield "keeps several experts in use, and experts: 1 has one", ("balance",)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also backbones whose states have seen what they predict, and states narrower than what is compared."""
        yield from super().problems(config)
        for name in self.under(config):
            backbone = config.backbones.get(name)
            if backbone is None:
                continue
            if not backbone.causal_states:
                yield "backbones", f"{name!r} looks both ways along a history; a causal one is needed here"
            if self.alignment is not None and self.alignment.dim > backbone.dim:
                yield "alignment.dim", f"{self.alignment.dim} is wider than the states of {name!r} ({backbone.dim})"

    def remarks(self) -> list[str]:
        """Neither the paper's method section nor its own code was to be had."""
        return ["a reconstruction: its own code was not to be had"]
