"""Settings of the mean of the history."""

from __future__ import annotations

from typing import ClassVar, Literal

from tessera.settings.clicks.base import ClickModel


class AverageSettings(ClickModel):
    """The mean of the whole history."""

    IMPLEMENTATION: ClassVar[str] = "tessera.ctr.models.avg:Model"
    model: Literal["avg"] = "avg"
