"""Settings of the demo world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tessera.settings.base import Settings
from tessera.settings.references import TRUTH, Need
from tessera.settings.sources.base import DatasetSettings

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Lifelong(Settings):
    """Long lives in the demo world, for click-through rate: interests that sleep and come back, and chance clicks.

    The log then holds impressions: rating 1 is a click, rating 0 is none (logged in the last part of the time alone).
    """

    clicks: int = Field(1200, ge=20)
    """Mean number of clicks a user (log-normal)."""
    interests: int = Field(12, ge=1)
    """Tastes of a user, which stay all its life."""
    session: float = Field(15.0, ge=1)
    """Mean impressions of a session, in which one interest is awake."""
    noise: float = Field(0.2, ge=0, lt=1)
    """Share of impressions that are clicked by chance, whatever they show."""
    logged: float = Field(0.3, gt=0, le=1)
    """Share of the time, its end, in which impressions without a click are logged too."""


class BazaarSource(DatasetSettings):
    """The demo world: a generated shop whose process, and so whose best reachable metric, is known."""

    IMPLEMENTATION: ClassVar[str] = "tessera.data.bazaar.generate"
    source: Literal["bazaar"] = "bazaar"
    users: int = Field(2000, ge=10)
    """Number of users."""
    items: int = Field(1200, ge=20)
    """Number of items."""
    seed: int = Field(7, ge=0)
    """Seed of the world."""
    mean_history: float = Field(12.0, ge=6, le=500)
    """Mean number of interactions a user (log-normal, 5 to 10 times the mean, at most half of the items, and
    fewer than are there from the start)."""
    tastes: int = Field(120, ge=4)
    """Tastes that users draw their interests from; memory grows with tastes x items (24 bytes each, `lifelong`: 40)."""
    popularity: float = Field(1.3, ge=0, le=3)
    """Exponent of the Zipf law of item popularity; 0 makes all items equally popular."""
    drift: float = Field(0.03, ge=0, le=1)
    """Probability, at every step, that one of a user's interests gives way to another taste."""
    transitions: float = Field(0.45, ge=0, le=0.9)
    """Share of the steps that follow from the item before rather than from an interest."""
    missing: float = Field(0.03, ge=0, le=1)
    """Share of the items without a picture, and, drawn apart, without a description."""
    late: float = Field(0.0, ge=0, le=0.9)
    """Share of the items that open late, at a time in the second half of the log: nobody has one before."""
    duplicated: float = Field(0.01, ge=0, le=1)
    """Share of the log's rows that stand in it twice."""
    malformed: float = Field(0.005, ge=0, le=1)
    """Unreadable lines in the log, as a share of the interactions."""
    oracle_users: int = Field(20_000, ge=0)
    """The truth behind each step is kept for so many users, for the oracle."""
    lifelong: Lifelong | None = None
    """Long histories of clicks and impressions, for `task: ctr`: instead of `mean_history`, `drift` and `transitions`
    it is this that says how users go on; nothing of their log is malformed or doubled."""

    def offers(self) -> frozenset[Need]:
        """The truth behind every step."""
        return frozenset({TRUTH})

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of what long lives go without."""
        yield from super().unread()
        if self.lifelong is not None:
            plain = ("mean_history", "drift", "transitions", "duplicated", "malformed")
            yield "is of a world without `lifelong`, which says itself how users go on", plain

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A log of impressions is for click-through rate, unless its clicks alone are read as sessions."""
        used = any(config.datasets.get(name) is self for name in config.experiment.datasets)
        clicks_alone = self.sessions is not None and (self.cleaning.min_rating or 0) > 0
        if used and self.lifelong is not None and config.task == "sequential" and not clicks_alone:
            yield (
                "lifelong",
                "its log holds impressions that nobody clicked, which needs task: ctr, or its clicks cut into "
                "`sessions` (with cleaning.min_rating: 1.0)",
            )
        if used and self.lifelong is not None and config.task == "ctr" and self.oracle_users < self.users:
            yield (
                "oracle_users",
                f"{self.oracle_users}, but the truth is asked of every test sample; expected {self.users}, the users, "
                "or more",
            )
        if self.lifelong is not None and self.late:
            yield "late", "no item of a lifelong world opens late"
