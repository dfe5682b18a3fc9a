"""Settings of any table, by its columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from tessera.settings.base import did_you_mean
from tessera.settings.datasets import SessionsByGap
from tessera.settings.sources.base import FileSource, Separator

if TYPE_CHECKING:
    from tessera.settings.config import Config


class ColumnsSource(FileSource):
    """Any CSV, Parquet or JSON file, or a folder of parts, by a mapping of columns."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.columns"
    NAMES_SESSIONS: ClassVar[bool] = True
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
    separator: Separator | None = None
    """Separator of a text table; null takes the most frequent of tab, comma, semicolon and | in its first line."""

    @model_validator(mode="after")
    def _sessions_need_times(self) -> ColumnsSource:
        by_time = isinstance(self.sessions, SessionsByGap) or self.split.kind == "sessions"
        if self.sessions is not None and by_time and self.timestamp is None:
            raise ValueError(
                f"sessions: {self.sessions.kind} with split {self.split.kind} goes by time: name the column in "
                "`timestamp`"
            )
        return self

    @property
    def attributes(self) -> list[str] | None:
        """The texts of the items; code of one's own may tell more of them."""
        if self.IMPLEMENTATION != ColumnsSource.IMPLEMENTATION:
            return None
        return [] if self.items is None else self.items.text

    @property
    def timeless(self) -> bool:
        """Where no column tells of times."""
        return self.timestamp is None

    @property
    def unrated(self) -> bool:
        """Where no column tells of ratings."""
        return self.rating is None

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A column of parts that no split reads, or a split that has none; a column that is named for two things;
        attributes that no column gives."""
        yield from super().problems(config)
        named: dict[str, str] = {}
        for key in ("user", "item", "timestamp", "rating", "split_column"):
            if (column := getattr(self, key)) is not None and named.setdefault(column, key) != key:
                yield key, f"names the column {column!r}, as `{named[column]}` does; expected another column"
        if self.split.kind == "given" and self.split_column is None:
            yield "split_column", "split given needs the column of the part (train, valid, test)"
        if self.split.kind != "given" and self.split_column is not None:
            yield "split_column", f"split {self.split.kind} does not read it; say split: {{kind: given}}"
        if self.attributes is None:
            return
        texts = [*(["title"] if self.items is not None and self.items.title else []), *self.attributes]
        for number, name in enumerate(self.prompt.attributes or []):
            if name not in texts:
                yield (
                    f"prompt.attributes.{number}",
                    f"{name!r} is no text of the items (`items.title`, `items.text`){did_you_mean(name, texts)}",
                )
