"""Settings of MiniOneRec's files."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.sources.base import FileSource


class MiniOneRecSource(FileSource):
    """MiniOneRec's Amazon samples and item texts; `path` is the folder with train, valid, test and index."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.minionerec"
    READS_FOLDER: ClassVar[bool] = True
    source: Literal["minionerec"]
    category: str | None = None
    """Start of the file names, e.g. `Industrial_and_Scientific`, where the folder holds several categories."""
