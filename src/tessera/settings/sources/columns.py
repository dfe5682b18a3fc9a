"""Settings of any table, by its columns."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.sources.base import FileSource


class ColumnsSource(FileSource):
    """Any CSV, Parquet or JSON file, or a folder of parts, by a mapping of columns."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.columns"
    source: Literal["columns"]
    user: str = "user"
    """Column of the user."""
    item: str = "item"
    """Column of the item (or of a list of items in time order: JSON, Python or Parquet list)."""
    timestamp: str | None = None
    """Column of the time (unix time of any unit, dates in one of many forms); null takes the order of the rows."""
    rating: str | None = None
    """Column of the rating."""
    split_column: str | None = None
    """Column of the part (train, valid, test or 0, 1, 2), for `split: {kind: given}`."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """Separator of a text table; null takes the most frequent of tab, comma, semicolon and | in its first line."""

    @property
    def timeless(self) -> bool:
        """Where no column tells of times."""
        return self.timestamp is None
