"""Settings of I3-MRec as published: a graph of users and items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import Width
from tessera.settings.systems.i3_mrec_base import InvariantModalities


class I3MRecGraphSystem(InvariantModalities):
    """Texts and pictures as environments of one preference, a graph convolution each (I3-MRec, ACM MM 2025)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.i3_mrec_graph:I3MRecGraph"
    PUBLISHED: ClassVar[str] = "tessera.recommenders.systems.i3_mrec_graph_published:PublishedI3MRecGraph"
    OFFICIAL: ClassVar[dict[str, Any]] = {**InvariantModalities.OFFICIAL, "regularize": "first"}
    HABITS: ClassVar[tuple[str, ...]] = (*InvariantModalities.HABITS, "regularize")
    recommender: Literal["i3_mrec_graph"] = "i3_mrec_graph"
    dim: Width = 64
    """Width of the vectors of users and items."""
    layers: int = Field(3, ge=1, le=100)
    """Graph convolutions; the mean of their outputs and of what enters the first is read."""
    regularization: float = Field(1.0e-3, ge=0)
    """Weight of half the squared lengths of the vectors that a pair of items reads."""
    regularize: Literal["all", "first"] = "all"
    """Whose vectors those are: the mean of the environments, or the first alone, as published."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of lengths that weigh nothing."""
        yield from super().unread()
        if not self.regularization:
            yield "says whose lengths are kept small, and regularization is 0", ("regularize",)
