"""Settings of the ranking by popularity."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.systems.base import SystemSettings


class PopularSettings(SystemSettings):
    """Every user gets the items with the most training interactions."""

    IMPLEMENTATION: ClassVar[str] = "tessera.recommenders.systems.popular:Popular"
    recommender: Literal["popular"] = "popular"
