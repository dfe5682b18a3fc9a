"""Settings of item neighbours."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tessera.settings.systems.base import SystemSettings


class ItemKNNSettings(SystemSettings):
    """Cosine of train co-occurrence between the history's items and the candidate."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.item_knn:ItemKNN"
    recommender: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    """Neighbours kept an item."""
    shrinkage: float = Field(10.0, ge=0)
    """Added to the denominator: how much evidence a similarity needs."""
    decay: float = Field(0.9, gt=0, le=1)
    """Weight of an item of the history relative to the one after it; 1 forgets the order."""
    max_history: int = Field(500, ge=1)
    """Only the last items of a history count pairs: bounds the cost of very active users."""
