"""Settings of test sets that differ from training: users of the test set whose targets are unpopular, or late."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from tessera.settings.base import Seed, Settings, share_or_day

if TYPE_CHECKING:
    from tessera.settings.config import Config


class PopularityShift(Settings):
    """Test users drawn once so that their targets are less popular than those of training; cold targets stay out."""

    kind: Literal["popularity"] = "popularity"
    draw: Literal["inverse", "bins"] = "inverse"
    """`inverse`: without replacement, by a weight of 1 / (training interactions of the target) ^ `power`. `bins`: as
    many users of each of `bins` groups of items, which have as many items each, by popularity."""
    share: float = Field(0.25, gt=0, lt=1)
    """Of `inverse`: how many of the test users are drawn. The fewer, the farther from training."""
    power: float = Field(1.0, gt=0, le=10)
    """Of `inverse`: 1 makes all items that are targets about as likely; more favours the least popular."""
    bins: int = Field(5, ge=2)
    """Of `bins`: the groups. All give as many users as the one with the fewest; one without a target gives none."""
    seed: Seed = 0
    """Seed of the drawing."""

    def unread(self) -> Iterator[tuple[str, Iterable[str]]]:
        """Also of the other way to draw."""
        yield from super().unread()
        if self.draw == "inverse":
            yield "is read under draw: bins alone", ("bins",)
        else:
            yield "is read under draw: inverse alone", ("share", "power")


class TemporalShift(Settings):
    """Test users whose target is later than a cut, beside those whose target is earlier."""

    kind: Literal["temporal"] = "temporal"
    after: float | str = 0.2
    """Share of the test users whose targets are the latest, or the day ('YYYY-MM-DD') from which on targets are late.
    Equal times never stand on both sides."""

    @field_validator("after")
    @classmethod
    def _share_or_day(cls, value: float | str) -> float | str:
        return share_or_day(value)

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Datasets of which it is known that they have no times."""
        for name in config.experiment.datasets:
            if config.datasets[name].timeless:
                yield "kind", f"'temporal' needs times, and datasets.{name} has none; use kind popularity"


Shift = Annotated[PopularityShift | TemporalShift, Field(discriminator="kind")]

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]*")
_OTHER_GROUPS = ("head", "tail", "cold", "cold only", "warm")


def check_shift_name(name: str) -> None:
    """Refuse what cannot stand over a column of a table.

    Raises:
        ValueError: it is no name, or that of another group.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name: letters, digits, spaces, '-', '_' and '.', the first no '.' or space")
    if name in _OTHER_GROUPS:
        raise ValueError(f"{name!r} is what tables call another group; choose another name")
