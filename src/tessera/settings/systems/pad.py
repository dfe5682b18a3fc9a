"""Settings of PAD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from tessera.settings.base import PresetSettings, Settings, Width, each_once
from tessera.settings.references import TableName
from tessera.settings.systems.backbone_base import UnderBackbones

Expert = Literal["id", "aligned", "text"]
EXPERTS: tuple[Expert, ...] = get_args(Expert)


class PhaseTraining(Settings):
    """A phase of the training; null takes what `training` says."""

    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW."""
    epochs: int | None = Field(None, ge=1)
    """At most this many passes over the training targets."""
    patience: int | None = Field(None, ge=1)
    """Validations without a better NDCG@10 before the phase ends."""


class AlignmentPhase(PhaseTraining):
    """How the vectors that histories gave and those that the table gives are brought together."""

    kernel: Literal["gaussian_multi", "gaussian", "laplacian", "linear", "cosine", "infonce", "none"] = "gaussian_multi"
    """Of the maximum mean discrepancy; `infonce` is a contrast of an item's two vectors in its place, `none` leaves the
    loss of the recommender alone."""
    weight: float | None = Field(None, gt=0)
    """Of the alignment beside the loss of the recommender; null is 0.2, of infonce 0.01, as published."""
    temperature: float = Field(0.1, gt=0)
    """Of infonce."""
    anchor: bool = True
    """Keep the loss of the recommender beside the alignment. Without it nothing can be validated: the phase lasts
    exactly `epochs`."""
    most_items: int = Field(1024, ge=2)
    """Items of a step that are aligned at most; the discrepancy costs the square of them."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of a contrast, or of an alignment, that there is none of."""
        yield from super().unread()
        if self.kernel != "infonce":
            yield f"is of kernel infonce, and {self.kernel} has none", ("temperature",)
        if self.kernel == "none":
            yield "is of an alignment, and kernel none leaves it out", ("weight", "most_items")
        if not self.anchor:
            yield "is of validations, and there are none without anchor: the phase lasts `epochs`", ("patience",)


class PADSystem(PresetSettings, UnderBackbones):
    """An ID tower, an aligned tower and a text tower, mixed by the popularity of the candidate (PAD, SIGIR 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.pad:PAD"
    HISTORY_LOSSES: ClassVar[bool] = True
    PUBLISHED: ClassVar[str] = "tessera.recommenders.systems.pad_published:PublishedPAD"
    OFFICIAL: ClassVar[dict[str, Any]] = {
        "members": "slots", "fusion": "concat_gelu", "projector": "deep_gelu", "standardize": False,
        "loss": {"kind": "bce"},
    }  # fmt: skip
    HABITS: ClassVar[tuple[str, ...]] = ("members",)
    recommender: Literal["pad"] = "pad"
    table: TableName
    """Name under `tables`: what language models say of the items."""
    experts: Annotated[list[Expert], AfterValidator(each_once)] = Field(
        default_factory=lambda: [*EXPERTS], min_length=1
    )
    """The towers that score in the end: IDs, IDs fused with the aligned text, text alone."""
    pretrain: PhaseTraining | None = Field(default_factory=PhaseTraining)
    """First phase: the ID tower alone, from which the aligned one starts; null goes without."""
    align: AlignmentPhase | None = Field(default_factory=AlignmentPhase)
    """Second phase: the aligned tower alone; null goes without, and it starts as the ID tower ended."""
    disentangle: PhaseTraining = Field(default_factory=PhaseTraining)
    """Last phase: all towers and the gate, by the loss of the recommender alone."""
    gate: Literal["bins", "global", "uniform"] = "bins"
    """What the towers' weights depend on: the popularity bin of the candidate, nothing (learned all the same), or
    nothing is learned and all weigh alike."""
    bins: int = Field(10, ge=1, le=1000)
    """Popularity bins of equal shares of the training interactions."""
    projector: Literal["adapter", "deep_gelu"] = "adapter"
    """From the table to item vectors: `adapter`, or five layers of the vectors' width, a GELU after each, the last too,
    as published."""
    adapter: list[Width] = Field(default_factory=lambda: [256])
    """Hidden widths of the adapter; [] is one linear map."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the projectors and before the fusion."""
    standardize: bool = True
    """Centre the table and scale it to unit mean square; false takes it as it is, as published."""
    fusion: Literal["concat", "concat_gelu", "add"] = "concat"
    """What the aligned tower makes of an item's two vectors: a linear map of both side by side that starts as the ID
    vector, so that what was learned is handed over; such a map with a GELU that starts at random, as published; or
    their sum."""
    members: Literal["items", "slots"] = "items"
    """Whose vectors are aligned: each item of the step once, or every slot of the batch, padding, repeats and negatives
    too, as published."""

    @model_validator(mode="after")
    def _has_a_use(self) -> PADSystem:
        if self.align is not None and not self.align.anchor and self.align.kernel == "none":
            raise ValueError("align: neither a kernel nor the loss of the recommender: nothing would be trained")
        return self

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of bins, adapters, towers and an alignment that there are none of."""
        yield from super().unread()
        if self.gate != "bins":
            yield f"is of gate bins, and gate {self.gate} has none", ("bins",)
        if self.projector == "deep_gelu" and self.says("projector"):
            yield "is of projector adapter, and deep_gelu has widths of its own", ("adapter",)
        if not {"id", "aligned"} & set(self.experts):
            phase = ["pretrain"] if self.pretrain is not None else []
            yield "is of the ID tower, from which no tower of experts takes anything", phase
        if "aligned" not in self.experts:
            phase = ["align"] if self.align is not None else []
            yield "is of the aligned tower, which experts does not name", (*phase, "fusion", "members")
        elif self.align is None or self.align.kernel == "none":
            yield "says whose vectors are aligned, and none are", ("members",)
        if self.experts == ["id"]:
            of_text = ("projector", "adapter", "dropout", "standardize")
            yield "is of towers that read the table, and experts names none", of_text

    @property
    def takes_new(self) -> bool:
        """Where a tower that scores reads the table."""
        return bool({"aligned", "text"} & set(self.experts))

    @property
    def phases(self) -> dict[str, PhaseTraining]:
        """The phases by name, in their order; those that no scoring tower takes something from are left out."""
        phases: dict[str, PhaseTraining] = {}
        if self.pretrain is not None and {"id", "aligned"} & set(self.experts):
            phases["pretrain"] = self.pretrain
        if self.align is not None and "aligned" in self.experts:
            phases["align"] = self.align
        return {**phases, "disentangle": self.disentangle}
