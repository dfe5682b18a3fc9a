"""What the whole numbers of a log's times count: the coarsest unit that loses nothing of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera.artifacts.tables import ArtifactError, describe

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Ticks a second of every unit, the coarsest first."""


@dataclass(frozen=True)
class Clock:
    """Unit and meaning of int64 times; it stands in the metadata of the files that hold them."""

    unit: str = "s"
    """One of `UNITS`; whole seconds unless the log has finer times."""
    dated: bool = True
    """Whether times count from 1970-01-01 UTC; false for numbers that only say an order (1, 2, 3, ...)."""

    @property
    def ticks(self) -> int:
        """Units a second."""
        return UNITS[self.unit]

    def described(self) -> dict[str, Any]:
        """The metadata fields."""
        return {"time_unit": self.unit, "dated": self.dated}

    def seconds(self, moment: int) -> int | float:
        """Seconds of a time: a whole number where the clock counts seconds."""
        return moment if self.ticks == 1 else moment / self.ticks

    def text(self, moment: int) -> str:
        """A time as a person reads it: date and time (UTC), or the bare number where times have no date."""
        if self.dated:
            return str(np.int64(moment).astype(f"M8[{self.unit}]"))
        return f"{self.seconds(moment):g}"


SECONDS = Clock()
"""Unix seconds."""


def read_clock(path: str | Path) -> Clock:
    """The clock of an artifact with times; seconds where it says nothing.

    Raises:
        ArtifactError: the unit is none that this Tessera knows.
    """
    description: Mapping[str, Any] = describe(path)
    unit = description.get("time_unit", "s")
    if unit not in UNITS:
        raise ArtifactError(f"{path}: times in {unit!r}, expected one of {', '.join(UNITS)}")
    return Clock(unit, bool(description.get("dated", True)))
