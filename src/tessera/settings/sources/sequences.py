"""Settings of texts of histories."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.sources.base import FileSource


class SequencesSource(FileSource):
    """Text of histories in time order: `user item` a line, or `user item item ...` a line."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.sequences"
    source: Literal["sequences"]
    layout: Literal["pairs", "lines", "lines_without_user"] = "pairs"
    """One pair a line; a user and all its items a line; or only items, the user being the line number."""
    targets: str | None = None
    """File of one held-out item a user (`user item`, or `item` matched by line), for `split: {kind: given}`."""
    films: str | None = None
    """MovieLens' file of films (`movies.dat`, `u.item` or `movies.csv`), where the items are films."""
    film_ids: str | None = None
    """File of `item film` lines, where the histories number the films anew."""

    @property
    def timeless(self) -> bool:
        """A text of histories tells their order alone."""
        return True
