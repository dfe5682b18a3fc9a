"""Settings of RecBole's files."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.sources.base import FileSource


class RecBoleSource(FileSource):
    """RecBole or MMRec atomic files; `path` is the `.inter` file."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.recbole"
    source: Literal["recbole"]
    items_file: str | None = None
    """The `.item` file, looked up like `path`."""
