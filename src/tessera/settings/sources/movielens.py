"""Settings of MovieLens' files."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.sources.base import FileSource


class MovieLensSource(FileSource):
    """MovieLens 100K (`u.data`), 1M (`ratings.dat`) or latest (`ratings.csv`); `path` is the folder."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.movielens"
    READS_FOLDER: ClassVar[bool] = True
    source: Literal["movielens"]
