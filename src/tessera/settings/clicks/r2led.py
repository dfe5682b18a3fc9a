"""Settings of R2LED."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tessera.settings.clicks.base import OF_CODES
from tessera.settings.clicks.retrieval_base import Hashed

if TYPE_CHECKING:
    from tessera.settings.config import Config

Route = Literal["target", "recent", "global", "levels"]


class R2LEDSettings(Hashed):
    """Retrieval and refinement with semantic IDs: a reconstruction from the abstract of R2LED (arXiv 2602.06622)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.r2led:Model"
    model: Literal["r2led"] = "r2led"
    read_codes: Literal[True] = True
    """Always: codes are half of the model."""
    routes: list[Route] = Field(default_factory=lambda: list[Route](["target", "recent", "global"]), min_length=1)
    """Queries: the target, the last events, all events; `levels` is one route for each level of the codes."""
    k: int = Field(16, ge=1)
    """Events retrieved by each route."""
    index: Literal[True] = True
    """Always: serving compares with the distinct items of a history."""
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

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also routes that would all retrieve the same."""
        yield from super().problems(config)
        if self.views == "collaborative" and "levels" in self.routes:
            yield "routes", "levels are of codes, which views collaborative does without: each would retrieve the same"

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of routes, scores and sides that the model does not have."""
        yield from super().unread()
        by_quota = self.views == "mixed" and self.mixing == "quota"
        if self.views != "mixed":
            yield f"is of both scores, and views {self.views} has one", ("mixing", "alpha")
        elif by_quota:
            yield "is of scores that are summed, and mixing quota sums none", ("alpha",)
        else:
            yield "is of the half of the events that codes retrieve, and mixing fuse has no halves", ("matches_only",)
        if self.views == "collaborative":
            yield "is of the semantic score, which views collaborative does without", ("level_weights", "matches_only")
        elif self.views == "semantic":
            yield "is of hash codes, which views semantic does without", ("bits",)
        if self.routes == ["levels"]:
            yield "weighs levels in one score, and routes [levels] scores each alone", ("level_weights",)
        elif len(self.routes) == 1:
            yield "is of several routes, and there is one", ("fusion",)
        if "recent" not in self.routes:
            yield "is of the route recent, which routes does not name", ("recent",)
        if self.gate == "none":
            yield "is of vectors of semantic IDs, which gate none does without", OF_CODES
        elif self.gate == "levels":
            yield "is of one vector for all levels, and gate levels weighs each", ("combine",)

    def remarks(self) -> list[str]:
        """No code was published."""
        return ["a reconstruction from the abstract"]
