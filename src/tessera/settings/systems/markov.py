"""Settings of the Markov chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.similar import OF_SIMILAR, SimilarItems
from tessera.settings.systems.base import SystemSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class MarkovSettings(SystemSettings):
    """First-order Markov chain over train transitions, backed off to popularity."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.markov:Markov"
    recommender: Literal["markov"] = "markov"
    smoothing: float = Field(5.0, ge=0)
    """Pseudo-count of the popularity prior in each row."""
    similar: SimilarItems | None = None
    """Items whose transitions an item borrows, by a table; null leaves every item to its own."""
    strength: float = Field(5.0, ge=0)
    """Pseudo-count of what is borrowed in each row."""
    kept: int = Field(1000, ge=1, le=100_000)
    """Borrowed items kept an item, those of the largest shares: of dense logs and many neighbours all would come to
    items squared."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of items from which nothing is borrowed."""
        yield from super().unread()
        if self.similar is None:
            yield OF_SIMILAR, ("strength", "kept")

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Similar items without a table."""
        yield from super().problems(config)
        if self.similar is not None and self.similar.table is None:
            yield "similar.table", "is needed: what is fitted by counting has no item vectors of its own"
