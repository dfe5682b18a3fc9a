"""Settings of a click model of recent events."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tessera.settings.clicks.base import ClickModel


class RecentClicks(ClickModel):
    """The mean of the last few events."""

    IMPLEMENTATION: ClassVar[str] = "mine.recent:Model"
    window: int = Field(5, ge=1)
    """Events that count."""
