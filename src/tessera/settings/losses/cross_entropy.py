"""Cross-entropy over the catalogue."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class CrossEntropy(Settings):
    """Softmax cross-entropy over the whole catalogue, in chunks of targets (never targets x items in memory)."""

    kind: Literal["cross_entropy"] = "cross_entropy"
