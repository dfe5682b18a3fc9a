"""Settings of what is learned from: sources of raw logs, cleaning and splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tessera.settings.base import Seed, Settings, day, share_or_day


class Core(Settings):
    """Iterative k-core: every user and item keeps at least so many interactions."""

    users: int = Field(5, ge=0)
    """Least interactions a user; 0 keeps every user."""
    items: int = Field(5, ge=0)
    """Least interactions an item; 0 keeps every item."""
    on: Literal["all", "train"] = "all"
    """Count on all data (the published habit; sees the future) or on the training part only (not for leave-one-out)."""


class Cleaning(Settings):
    """What happens to the rows between the log and the dataset, in this order; each step is counted."""

    max_rejected: float = Field(0.05, ge=0, le=1)
    """Largest share of unreadable rows before the stage stops."""
    min_rating: float | None = None
    """Keep interactions rated at least this; rows without a rating stay."""
    since: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """First day kept (UTC, 'YYYY-MM-DD' in quotes)."""
    until: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Last day kept (UTC)."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Rows equal in user, item and timestamp to its last digit (logs without timestamps have no duplicates)."""
    repeats: Literal["keep", "first", "last"] = "keep"
    """Items that a user meets again: keep all, the first, or the last meeting."""
    core: Core | None = Field(default_factory=Core)
    """Iterative k-core; null keeps everyone."""
    max_history: int | None = Field(None, ge=3)
    """Keep the most recent interactions of a user (under global_temporal: of its training part)."""

    @field_validator("since", "until")
    @classmethod
    def _days(cls, value: str | None) -> str | None:
        if value is not None:
            day(value)
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Cleaning:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(f"since {self.since} is after until {self.until}: no row could be kept")
        return self


class LeaveOneOut(Settings):
    """A user's last interaction tests, the one before validates, the rest trains (users shorter than 3 only train)."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class GlobalTemporal(Settings):
    """One cut in time for everybody: nothing after it trains (Meng et al. 2020; Time to Split, RecSys 2025)."""

    kind: Literal["global_temporal"] = "global_temporal"
    valid: float | str = 0.1
    """Share of the interactions between the two cuts, or the day of the first cut ('YYYY-MM-DD')."""
    test: float | str = 0.1
    """Share of the interactions after the last cut, or its day."""
    target: Literal["last", "first", "random", "new"] = "first"
    """Which interaction of a user after the cut is the target. `new`: the first with an item that nothing trains on, to
    see what systems make of new items, and the first of all where there is none (it always validates)."""
    seed: Seed = 0
    """Seed of `target: random`."""

    @field_validator("valid", "test")
    @classmethod
    def _shares_or_days(cls, value: float | str) -> float | str:
        return share_or_day(value)

    @model_validator(mode="after")
    def _something_trains(self) -> GlobalTemporal:
        if isinstance(self.valid, float) and isinstance(self.test, float) and self.valid + self.test >= 1:
            raise ValueError(f"valid and test are {self.valid + self.test:g} of the interactions; none trains")
        if isinstance(self.valid, str) and isinstance(self.test, str) and day(self.valid) > day(self.test):
            raise ValueError(f"valid {self.valid} is after test {self.test}; it is the day of the first cut")
        return self


class GivenSplit(Settings):
    """The source says which row belongs to which part (its `split` column or its files)."""

    kind: Literal["given"] = "given"


class NoSplit(Settings):
    """Every interaction trains, nothing validates or tests: what `experiment.final` makes of a dataset."""

    kind: Literal["none"] = "none"
    by_part: bool = False
    """Whether a user's rows are in the order of the source's own parts first, as under `given`."""


Split = Annotated[LeaveOneOut | GlobalTemporal | GivenSplit | NoSplit, Field(discriminator="kind")]
