"""What the sources of Amazon reviews share."""

from __future__ import annotations

from typing import Literal

from tessera.settings.sources.base import FileSource


class AmazonSource(FileSource):
    """Amazon reviews and metadata, JSON lines, plain or .gz (McAuley lab)."""

    source: Literal["amazon_2014", "amazon_2018", "amazon_2023"]
    metadata: str | None = None
    """The metadata file, looked up like `path`; null leaves items without text."""
