"""Cross-entropy over the catalogue."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.losses.base import LossSettings


class CrossEntropy(LossSettings):
    """Softmax cross-entropy over the whole catalogue, in chunks of targets (never targets x items in memory)."""

    IMPLEMENTATION: ClassVar[str] = "tessera.objectives.losses.cross_entropy:CrossEntropyLoss"
    ALL_ITEMS: ClassVar[bool] = True
    kind: Literal["cross_entropy"] = "cross_entropy"
