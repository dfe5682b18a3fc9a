"""Settings of click-through models: what each reads of a long history, and how (docs/systems/lifelong_ctr.md)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.base import PresetSettings, Settings, Width


class ClickModel(Settings):
    """What all click-through models share: item vectors and the network on top."""

    dim: Width = 16
    """Width of the vector of an item id."""
    category_dim: int = Field(16, ge=0, le=2**16)
    """Width of the vector of a category; 0 reads no categories."""
    read_codes: bool = False
    """Item vectors also hold those of the item's semantic ID: what R2LED knows of items, for fair comparisons."""
    counts: bool = False
    """The logit also has a part told by how many events of the whole history are of the target's item and of its
    category and, where codes are read, share each of its prefixes: what R2LED's `histogram` knows, for fair
    comparisons."""
    code_dim: Width = 16
    """Width of code vectors where no codebook gives it."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Code vectors start as the quantiser's codebooks, or at random."""
    combine: Literal["sum", "concat"] = "concat"
    """Add the vectors of the levels, or lay them side by side."""
    hidden: list[Width] = Field(default_factory=lambda: [200, 80])
    """Hidden widths of the network that scores target and interests."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in that network."""


class ShortTerm(ClickModel):
    """Models that read the last events by themselves beside what they find in the long history."""

    short: int = Field(20, ge=0)
    """Last events behind a DIN attention of their own; 0 has none."""
    attention_hidden: list[Width] = Field(default_factory=lambda: [32], min_length=1)
    """Hidden widths of DIN's attention network."""


class Retrieval(ShortTerm):
    """Models that attend to a few retrieved events."""

    k: int = Field(50, ge=1)
    """Events retrieved."""
    heads: int = Field(4, ge=1, le=2**16)
    """Heads of the attention over them."""
    attention_dim: Width = 32
    """Width of all heads together."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Retrieval:
        if self.attention_dim % self.heads:
            raise ValueError(f"attention_dim {self.attention_dim} is not a multiple of heads {self.heads}")
        return self


class Hashed(Retrieval):
    """Models that retrieve by SimHash: signs of random projections of the item vectors."""

    bits: int = Field(32, ge=1, le=62)
    """Signs in a hash code."""
    index: bool = True
    """When serving, compare with the distinct hash codes of a history and not with every event; the result is the
    same."""


class AverageSettings(ClickModel):
    """The mean of the whole history."""

    model: Literal["avg"] = "avg"


class DINSettings(ClickModel):
    """Deep interest network (Zhou et al., KDD 2018)."""

    model: Literal["din"] = "din"
    window: int | None = Field(50, ge=1)
    """Last events read; null reads all."""
    attention_hidden: list[Width] = Field(default_factory=lambda: [32], min_length=1)
    """Hidden widths of the attention network."""
    activation: Literal["dice", "relu"] = "dice"
    """Inside the attention network."""


class SIMHardSettings(Retrieval):
    """Search-based interest model (Pi et al., CIKM 2020), hard search: events of the target's category."""

    model: Literal["sim_hard"] = "sim_hard"


class SIMSoftSettings(Retrieval):
    """Search-based interest model (Pi et al., CIKM 2020), soft search: largest inner products."""

    model: Literal["sim_soft"] = "sim_soft"
    search_weight: float = Field(1.0, gt=0)
    """Weight of the loss that trains the vectors of the search."""


class ETASettings(Hashed):
    """End-to-end target attention (Chen et al., 2021): nearest hash codes of the current vectors."""

    model: Literal["eta"] = "eta"


class SDIMSettings(ShortTerm):
    """Sampling-based deep interest model (Cao et al., CIKM 2022): events whose hash collides with the target's."""

    model: Literal["sdim"] = "sdim"
    bits: int = Field(48, ge=1)
    """Hash functions."""
    group: int = Field(3, ge=1, le=16)
    """Functions that have to agree."""

    @model_validator(mode="after")
    def _groups_divide(self) -> SDIMSettings:
        if self.bits % self.group:
            raise ValueError(f"bits {self.bits} is not a multiple of group {self.group}")
        return self


class TWINSettings(Retrieval):
    """Two-stage interest network (Chang et al., KDD 2023): one attention score retrieves and weighs."""

    model: Literal["twin"] = "twin"


class MIRRNSettings(PresetSettings, Hashed):
    """Multi-granularity interest retrieval and refinement network (Xu et al., KDD 2025)."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"filter": "diagonal", "mask": False}
    model: Literal["mirrn"] = "mirrn"
    k: int = Field(16, ge=1)
    """Events retrieved by each of the three queries: target, recent events, all events."""
    recent: int = Field(16, ge=1)
    """Last events that make the recent query."""
    filter: Literal["matrix", "diagonal"] = "matrix"
    """What a block of the Fourier filter multiplies with: its matrix, or the matrix's diagonal, as in the code."""
    mask: bool = True
    """Leave padding out of filter and attention; the code does not."""


Route = Literal["target", "recent", "global", "levels"]


class R2LEDSettings(Hashed):
    """Retrieval and refinement with semantic IDs: a reconstruction from the abstract of R2LED (arXiv 2602.06622)."""

    model: Literal["r2led"] = "r2led"
    read_codes: Literal[True] = True
    """Always: codes are half of the model."""
    routes: list[Route] = Field(default_factory=lambda: list[Route](["target", "recent", "global"]), min_length=1)
    """Queries: the target, the last events, all events; `levels` is one route for each level of the codes."""
    k: int = Field(16, ge=1)
    """Events retrieved by each route."""
    recent: int = Field(16, ge=1)
    """Last events that make the recent query."""
    views: Literal["mixed", "collaborative", "semantic"] = "mixed"
    """Which scores retrieve: hash codes of trained vectors, semantic IDs, or both."""
    mixing: Literal["quota", "fuse"] = "quota"
    """Both scores: half of the events by each, or all by their weighted sum."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the collaborative score where they are summed."""
    level_weights: list[float] | None = None
    """What each level that agrees adds to the semantic score; null is the same for all."""
    matches_only: bool = True
    """The semantic half takes only events that share a prefix with the query; else the latest events fill it up."""
    histogram: bool = True
    """The network also reads how many events of the whole history share each prefix with the target: how much of an
    interest there is, which attention over `k` events cannot tell."""
    gate: Literal["elementwise", "levels", "sum", "concat", "none"] = "elementwise"
    """How an item's two sides become one: a gate for each number, a softmax over the id and each level, their sum, a
    linear map of both, or the collaborative side alone."""
    fusion: Literal["attention", "mean"] = "attention"
    """How the routes become one: target-aware cross-attention, or their mean."""

    @model_validator(mode="after")
    def _sensible(self) -> R2LEDSettings:
        if len(set(self.routes)) < len(self.routes):
            raise ValueError(f"routes {self.routes} name one twice")
        if self.level_weights is not None and (min(self.level_weights) < 0 or sum(self.level_weights) <= 0):
            raise ValueError(f"level_weights {self.level_weights}, expected numbers from 0 with a positive sum")
        if self.views == "mixed" and self.mixing == "quota" and self.k < 2:
            raise ValueError(f"k {self.k} cannot be halved between the two scores, expected at least 2")
        return self


CTRModel = Annotated[
    AverageSettings
    | DINSettings
    | SIMHardSettings
    | SIMSoftSettings
    | ETASettings
    | SDIMSettings
    | TWINSettings
    | MIRRNSettings
    | R2LEDSettings,
    Field(discriminator="model"),
]
