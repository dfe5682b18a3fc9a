"""Whether what a dataset holds out was trained on before, by a run on another dataset of the same users and items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tessera.artifacts.files import file_digest
from tessera.artifacts.tables import describe
from tessera.data.clock import UNITS
from tessera.data.dataset import NO_TIME, TRAIN, Dataset, load_dataset, read_raw_ids

if TYPE_CHECKING:
    import polars as pl


class Moment(NamedTuple):
    """A time of a log, which another log may count otherwise."""

    ticks: int
    unit: str
    dated: bool

    def before(self, other: Moment) -> bool | None:
        """Whether it is earlier; None where the two cannot be compared: one is a date, the other an order."""
        if self.dated != other.dated:
            return None
        return self.ticks * UNITS[other.unit] < other.ticks * UNITS[self.unit]


def moment(fields: Any) -> Moment | None:
    """The inverse of what `Moment._asdict` wrote; None where nothing was."""
    return Moment(int(fields["ticks"]), str(fields["unit"]), bool(fields["dated"])) if fields else None


def last_trained(dataset: Dataset) -> Moment | None:
    """When the last interaction that trains was; None where one has no time, or none trains."""
    times = dataset.timestamps[dataset.split == TRAIN]
    if not len(times) or times.min() == NO_TIME:
        return None
    return Moment(int(times.max()), dataset.clock.unit, dataset.clock.dated)


def first_held_out(dataset: Dataset) -> Moment | None:
    """When the first interaction was that does not train; None where one has no time, or all train."""
    times = dataset.timestamps[dataset.split != TRAIN]
    if not len(times) or times.min() == NO_TIME:
        return None
    return Moment(int(times.min()), dataset.clock.unit, dataset.clock.dated)


def split_kind(data: Path) -> str | None:
    """The split of a prepared dataset; None where the file does not say."""
    kind: str | None = describe(data / "interactions.parquet").get("settings", {}).get("split", {}).get("kind")
    return kind


def data_digest(data: Path) -> str:
    """Fingerprint of the interactions."""
    return file_digest(data / "interactions.parquet")


def _rows(data: Path, dataset: Dataset, part: Literal["train", "held out"], ticks: int) -> pl.DataFrame:
    """Interactions of a part by raw ids: user, item, time (or `NO_TIME`), and how often each stands."""
    # here, for every training and judging reads this file, and few need it
    import polars as pl

    kept = (dataset.split == TRAIN) == (part == "train")
    users, items = (pl.Series(read_raw_ids(data, kind), dtype=pl.String) for kind in ("users", "items"))
    times = dataset.timestamps[kept]
    frame = pl.DataFrame(
        {
            "user": users.gather(dataset.users[kept]),
            "item": items.gather(dataset.items[kept]),
            "time": np.where(times == NO_TIME, NO_TIME, times * (ticks // dataset.clock.ticks)),
        }
    )
    return frame.group_by("user", "item", "time").len()


class Seen(NamedTuple):
    """Held-out interactions that were trained on before."""

    number: int
    of: int
    user: str = ""
    """Raw ids of one of them."""
    item: str = ""


def seen_before(now: Path, earlier: Path) -> Seen | None:
    """Which held-out interactions of a dataset are among the training ones of another: the same user, item and time.

    Where neither has times, an interaction was seen if more of its user and item were trained on than train now: one
    that comes again in the history tells nothing of the one that is held out.

    Args:
        now: folder of the dataset whose held-out rows are asked for.
        earlier: folder of the dataset that was trained on.
    Returns:
        None where times cannot be compared: one has none, or they are dates in one and an order in the other.
    """
    import polars as pl

    ours, theirs = load_dataset(now), load_dataset(earlier)
    timed = [bool((dataset.timestamps != NO_TIME).any()) for dataset in (ours, theirs)]
    if timed[0] != timed[1] or (timed[0] and ours.clock.dated != theirs.clock.dated):
        return None
    ticks = max(ours.clock.ticks, theirs.clock.ticks)
    held, trained_now = _rows(now, ours, "held out", ticks), _rows(now, ours, "train", ticks)
    before = _rows(earlier, theirs, "train", ticks)
    key = ["user", "item", "time"]
    seen = (
        held.rename({"len": "held"})
        .join(before.rename({"len": "before"}), on=key)
        .join(trained_now.rename({"len": "now"}), on=key, how="left")
        .with_columns(more=pl.col("before").cast(pl.Int64) - pl.col("now").fill_null(0).cast(pl.Int64))
        .with_columns(seen=pl.min_horizontal(pl.col("held").cast(pl.Int64), "more"))
        .filter(pl.col("seen") > 0)
        .sort("user", "item")
    )
    of = int(held["len"].sum())
    if not len(seen):
        return Seen(0, of)
    return Seen(int(seen["seen"].sum()), of, seen["user"][0], seen["item"][0])
