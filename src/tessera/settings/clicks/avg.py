"""Settings of the mean of the history."""

from __future__ import annotations

from typing import Literal

from tessera.settings.clicks.base import ClickModel


class AverageSettings(ClickModel):
    """The mean of the whole history."""

    model: Literal["avg"] = "avg"
