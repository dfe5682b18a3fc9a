"""Settings of the ranking by popularity."""

from __future__ import annotations

from typing import Literal

from tessera.settings.base import Settings


class PopularSettings(Settings):
    """Every user gets the items with the most training interactions."""

    recommender: Literal["popular"] = "popular"
