"""Settings of codebooks of drawn items."""

from __future__ import annotations

from typing import ClassVar

from tessera.settings.quantizers.base import Codes


class DrawnCodes(Codes):
    """Residual codes whose codebooks are rows of items drawn at random: what k-means starts from."""

    IMPLEMENTATION: ClassVar[str] = "mine.drawn"
