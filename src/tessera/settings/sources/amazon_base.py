"""What the sources of Amazon reviews share."""

from __future__ import annotations

from typing import ClassVar

from tessera.settings.sources.base import FileSource


class AmazonSource(FileSource):
    """Amazon reviews and metadata, JSON lines, plain or .gz (McAuley lab)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.sources.amazon"
    metadata: str | None = None
    """The metadata file, looked up like `path`; null leaves items without text."""
