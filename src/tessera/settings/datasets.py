"""Settings of what is learned from: sources of raw logs, cleaning and splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tessera.settings.base import Seed, Settings, day, share_or_day


class Core(Settings):
    """Iterative k-core: every user and item keeps at least so many interactions."""

    users: int = Field(5, ge=0)
    """Least interactions a user, or a session; 0 keeps every user, and every session of two."""
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
    """Items that a user meets again: keep all, the first, or the last meeting. The last is refused where the split is a
    cut in time or the source's own, and of click models: what is held out would take rows out of the training part."""
    core: Core | None = Field(default_factory=Core)
    """Iterative k-core; null keeps everyone."""
    max_history: int | None = Field(None, ge=3)
    """Keep the most recent interactions of a user (under global_temporal and given: of its training part), or of every
    session that trains."""

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


def _leaves_something(valid: float | str, test: float | str, what: str) -> None:
    """Refuse cuts that leave nothing to train on, or stand in the wrong order."""
    if isinstance(valid, float) and isinstance(test, float) and valid + test >= 1:
        raise ValueError(f"valid and test are {valid + test:g} of the {what}; none trains")
    if isinstance(valid, str) and isinstance(test, str) and day(valid) > day(test):
        raise ValueError(f"valid {valid} is after test {test}; it is the day of the first cut")


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

    _shares_or_days = field_validator("valid", "test")(share_or_day)

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also a seed of no drawing."""
        yield from super().unread()
        if self.target != "random":
            yield f"is of target: random, and {self.target} draws none", ("seed",)

    @model_validator(mode="after")
    def _something_trains(self) -> GlobalTemporal:
        _leaves_something(self.valid, self.test, "interactions")
        return self


class GivenSplit(Settings):
    """The source says which row belongs to which part (its `split` column or its files)."""

    kind: Literal["given"] = "given"


class SessionSplit(Settings):
    """Sessions cut in time, each as a whole in the part in which it ends: the last item of one that is held out is its
    target, those before it are looked back on, and nothing of it trains."""

    kind: Literal["sessions"] = "sessions"
    valid: float | str = 0.1
    """Share of the sessions that end between the two cuts, or the day of the first cut ('YYYY-MM-DD')."""
    test: float | str = 0.1
    """Share of the sessions that end after the last cut, or its day."""

    _shares_or_days = field_validator("valid", "test")(share_or_day)

    @model_validator(mode="after")
    def _something_trains(self) -> SessionSplit:
        _leaves_something(self.valid, self.test, "sessions")
        return self


class NoSplit(Settings):
    """Every interaction trains, nothing validates or tests: what `experiment.final` makes of a dataset."""

    kind: Literal["none"] = "none"
    by_part: bool = False
    """Whether a user's rows are in the order of the source's own parts first, as under `given`."""


class SessionsByGap(Settings):
    """A session ends where its user does nothing for longer than a gap."""

    kind: Literal["gap"] = "gap"
    minutes: float = Field(30.0, gt=0)
    """The longest time between two interactions of a session."""


class SessionsByColumn(Settings):
    """The log says which session of its user a row belongs to (`source: columns`)."""

    kind: Literal["column"] = "column"
    column: str
    """Column of the session; its ids are read within those of users, so that they may begin anew with each."""


class SessionsGiven(Settings):
    """The file holds sessions already: what its column of users says is a session."""

    kind: Literal["given"] = "given"


Sessions = Annotated[SessionsByGap | SessionsByColumn | SessionsGiven, Field(discriminator="kind")]

Split = Annotated[LeaveOneOut | GlobalTemporal | SessionSplit | GivenSplit | NoSplit, Field(discriminator="kind")]
