"""Settings of what is learned from: sources of raw logs, cleaning and splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tessera.settings.base import Settings


class Core(Settings):
    """Iterative k-core: every user and item keeps at least so many interactions."""

    users: int = Field(5, ge=1)
    """Least interactions a user."""
    items: int = Field(5, ge=1)
    """Least interactions an item."""
    on: Literal["all", "train"] = "all"
    """Count on all data (the published habit; sees the future) or on the training part only."""


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
    """Rows equal in user, item and timestamp (for logs without timestamps: nothing is a duplicate)."""
    repeats: Literal["keep", "first", "last"] = "keep"
    """Items that a user meets again: keep all, the first, or the last meeting."""
    core: Core | None = Field(default_factory=Core)
    """Iterative k-core; null keeps everyone."""
    max_history: int | None = Field(None, ge=3)
    """Keep the most recent interactions of a user."""


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
    target: Literal["last", "first", "random"] = "first"
    """Which interaction of a user after the cut is the target."""
    seed: int = 0
    """Seed of `target: random`."""


class GivenSplit(Settings):
    """The source says which row belongs to which part (its `split` column or its files)."""

    kind: Literal["given"] = "given"


Split = Annotated[LeaveOneOut | GlobalTemporal | GivenSplit, Field(discriminator="kind")]


class DatasetSettings(Settings):
    """What every source shares."""

    cleaning: Cleaning = Field(default_factory=Cleaning)
    """Filters and counts between the log and the dataset."""
    split: Split = Field(default_factory=LeaveOneOut)
    """How interactions are divided into train, valid and test."""


class FileSource(DatasetSettings):
    """A source that reads files."""

    path: str
    """File or folder. Relative paths are looked for under $TESSERA_DATA, then under the working directory."""
    images: str | None = None
    """Folder of pictures named by raw item id (`<id>.jpg`, .jpeg, .png, .webp)."""


class BazaarSource(DatasetSettings):
    """The demo world: a generated shop whose process, and so whose best reachable metric, is known."""

    source: Literal["bazaar"] = "bazaar"
    users: int = Field(2000, ge=10)
    """Number of users."""
    items: int = Field(1200, ge=20)
    """Number of items."""
    seed: int = Field(7, ge=0)
    """Seed of the world."""
    mean_history: float = Field(22.0, ge=6, le=500)
    """Mean number of interactions a user (log-normal, 5 to 10 times the mean, at most half of the items)."""
    tastes: int = Field(240, ge=4)
    """Tastes that users draw their interests from; memory grows with tastes x items (8 bytes each)."""
    popularity: float = Field(0.9, ge=0, le=3)
    """Exponent of the Zipf law of item popularity; 0 makes all items equally popular."""
    drift: float = Field(0.03, ge=0, le=1)
    """Probability, at every step, that one of a user's interests gives way to another taste."""
    transitions: float = Field(0.3, ge=0, le=0.9)
    """Share of the steps that follow from the item before rather than from an interest."""
    missing: float = Field(0.03, ge=0, le=1)
    """Share of the items without a picture, and, drawn apart, without a description."""
    duplicated: float = Field(0.01, ge=0, le=1)
    """Share of the log's rows that stand in it twice."""
    malformed: float = Field(0.005, ge=0, le=1)
    """Unreadable lines in the log, as a share of the interactions."""
    oracle_users: int = Field(20_000, ge=0)
    """The truth behind each step is kept for so many users, for the oracle."""


class AmazonSource(FileSource):
    """Amazon reviews and metadata, JSON lines, plain or .gz (McAuley lab)."""

    source: Literal["amazon_2014", "amazon_2018", "amazon_2023"]
    metadata: str | None = None
    """The metadata file, looked up like `path`; null leaves items without text."""


class YelpSource(FileSource):
    """Yelp reviews or tips and businesses, JSON lines; `path` is the review or tip file."""

    source: Literal["yelp"]
    businesses: str | None = None
    """The business file, looked up like `path`."""


class MovieLensSource(FileSource):
    """MovieLens 100K (`u.data`), 1M (`ratings.dat`) or latest (`ratings.csv`); `path` is the folder."""

    source: Literal["movielens"]


class RecBoleSource(FileSource):
    """RecBole or MMRec atomic files; `path` is the `.inter` file."""

    source: Literal["recbole"]
    items_file: str | None = None
    """The `.item` file, looked up like `path`."""


class SequencesSource(FileSource):
    """Text of histories in time order: `user item` a line, or `user item item ...` a line."""

    source: Literal["sequences"]
    layout: Literal["pairs", "lines", "lines_without_user"] = "pairs"
    """One pair a line; a user and all its items a line; or only items, the user being the line number."""


class ColumnsSource(FileSource):
    """Any CSV, Parquet or JSON lines file, by a mapping of columns."""

    source: Literal["columns"]
    user: str = "user"
    """Column of the user."""
    item: str = "item"
    """Column of the item (or of a list of items in time order)."""
    timestamp: str | None = None
    """Column of the time; null takes the order of the rows."""
    rating: str | None = None
    """Column of the rating."""


Dataset = Annotated[
    BazaarSource | AmazonSource | YelpSource | MovieLensSource | RecBoleSource | SequencesSource | ColumnsSource,
    Field(discriminator="source"),
]
