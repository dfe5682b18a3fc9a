"""Settings of Amazon reviews of 2023."""

from __future__ import annotations

from typing import Literal

from tessera.settings.sources.amazon_base import AmazonSource


class Amazon2023Source(AmazonSource):
    """Amazon reviews and metadata of 2023, JSON lines, plain or .gz (McAuley lab)."""

    source: Literal["amazon_2023"]
