"""Settings of Yelp's files."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.sources.base import FileSource


class YelpSource(FileSource):
    """Yelp reviews or tips and businesses, JSON lines; `path` is the review or tip file."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.yelp"
    source: Literal["yelp"]
    businesses: str | None = None
    """The business file, looked up like `path`."""
