"""Every pair of systems on the metric that decides, whatever the task: differences, p, intervals, gains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

from tessera.evaluation.significance import told_p
from tessera.reporting.runs import Array, Entry, Run

R = TypeVar("R", bound=Run)


class Gain(NamedTuple):
    """What one system gains over another, as it is printed."""

    name: str
    """The group or metric; empty for the one that decides, over all."""
    number: str
    interval: str


@dataclass(frozen=True, kw_only=True)
class Comparison(ABC, Generic[R]):
    """Every row on the main metric, and every pair of systems."""

    metric: str
    ranked: list[Entry[R]]
    """Competitors from best to worst."""
    intervals: dict[str, tuple[float, float]]
    """Name of a row, a bound's too -> the interval over users of its metric; lacking where there is none."""
    means: Array
    """(ranked,) the metric of each."""
    users: int
    """Test users that resamples draw from."""
    p: Array
    """(ranked, ranked), corrected over all pairs; ones where there are too few users for a test."""
    least: float
    """The least of them that the resamples can tell."""
    level: float
    """Significance level."""
    outside: float = 0.05
    """The share of resamples outside an interval."""

    AVERAGED: ClassVar[str]
    """What is averaged over the seeds, and how."""
    DIGITS: ClassVar[int] = 3
    """Decimals of differences in the matrix."""

    @abstractmethod
    def gains(self, one: int, other: int) -> list[Gain]:
        """What one system gains over another, by their places in `ranked`; the first of the main metric over all."""

    @property
    def pairs(self) -> int:
        """How many pairs were tested."""
        return len(self.ranked) * (len(self.ranked) - 1) // 2

    def place(self, entry: Entry[R]) -> int | None:
        """Where a row stands in `ranked`; None for a bound."""
        return next((place for place, other in enumerate(self.ranked) if other.name == entry.name), None)

    def difference(self, one: int, other: int) -> float:
        """The mean of one system minus that of another, by their places in `ranked`."""
        return float(self.means[one] - self.means[other])

    def told_difference(self, one: int, other: int) -> str:
        """The difference of a pair as it is printed in the matrix."""
        return f"{self.difference(one, other):+.{self.DIGITS}f}"

    def better(self, one: int, other: int) -> bool:
        """Whether one system is better than another by more than chance over users."""
        return bool(self.p[one, other] <= self.level) and self.difference(one, other) > 0

    def told_p(self, one: int, other: int) -> str:
        """The corrected p of a pair as it is printed."""
        return told_p(float(self.p[one, other]), self.least).replace(" ", "\u00a0")

    def beaten(self, one: int) -> int:
        """How many systems a system is better than."""
        return sum(self.better(one, other) for other in range(len(self.ranked)))

    def lost(self, one: int) -> int:
        """How many systems are better than a system."""
        return sum(self.better(other, one) for other in range(len(self.ranked)))
