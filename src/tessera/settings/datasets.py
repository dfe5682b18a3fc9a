"""Settings of what is learned from: sources of raw logs, cleaning and splits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, field_validator, model_validator

from tessera.settings.base import Seed, Settings, cut, told
from tessera.settings.language import ItemPrompt


def _day(value: str, expected: str = "no day") -> date:
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"{told(value)} is {expected} 'YYYY-MM-DD' ({cut(str(error))})") from None


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
            _day(value)
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
    target: Literal["last", "first", "random"] = "first"
    """Which interaction of a user after the cut is the target."""
    seed: Seed = 0
    """Seed of `target: random`."""

    @field_validator("valid", "test")
    @classmethod
    def _shares_or_days(cls, value: float | str) -> float | str:
        if isinstance(value, str):
            _day(value, "neither a share nor a day")
        elif not 0 < value < 1:
            raise ValueError(f"expected a share between 0 and 1, or a day 'YYYY-MM-DD' (got {value})")
        return value

    @model_validator(mode="after")
    def _something_trains(self) -> GlobalTemporal:
        if isinstance(self.valid, float) and isinstance(self.test, float) and self.valid + self.test >= 1:
            raise ValueError(f"valid and test are {self.valid + self.test:g} of the interactions; none trains")
        if isinstance(self.valid, str) and isinstance(self.test, str) and _day(self.valid) > _day(self.test):
            raise ValueError(f"valid {self.valid} is after test {self.test}; it is the day of the first cut")
        return self


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
    prompt: ItemPrompt = Field(default_factory=ItemPrompt)
    """How an item is told to a language model."""

    @model_validator(mode="after")
    def _train_core_needs_a_fixed_train_part(self) -> DatasetSettings:
        core = self.cleaning.core
        if core is not None and core.on == "train" and isinstance(self.split, LeaveOneOut):
            raise ValueError(
                "cleaning.core.on: 'train' needs split global_temporal or given; under leave_one_out every row removed "
                "would move the split"
            )
        return self


def _is_encoding(value: str | None) -> str | None:
    if value is not None:
        try:
            "a".encode(value)  # refuses codecs that are no encodings of text, too
        except LookupError:
            known = "utf-8, utf-16, latin-1, cp1252, cp1251, gb18030, shift_jis"
            raise ValueError(f"{value!r} is no encoding that Python knows, such as {known}") from None
    return value


Encoding = Annotated[str | None, AfterValidator(_is_encoding)]


class ItemsFile(Settings):
    """A table of item texts and pictures (CSV, TSV, Parquet or JSON), joined to the items by raw id."""

    path: str
    """The file, looked up like `path` of the dataset."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum of the file when `path` is a URL."""
    id: str
    """Column of the raw item id; of repeated ids the first counts."""
    title: str | None = None
    """Column of the title."""
    text: list[str] = Field(default_factory=list)
    """Columns that become attributes, in this order."""
    image: str | None = None
    """Column of the picture's file name, relative to `images`."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """Separator of a text table; null takes the most frequent of tab, comma, semicolon and | in its first line."""
    encoding: Encoding = None
    """Encoding of a text file, as Python names it; null tells it from the file (UTF-8, UTF-16, Latin-1)."""


class FileSource(DatasetSettings):
    """A source that reads files."""

    path: str
    """File, folder or URL. Relative paths are looked for under $TESSERA_DATA, then under the working directory."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum of the file when `path` is a URL; it is downloaded once, into data/downloads."""
    encoding: Encoding = None
    """Encoding of the text files, as Python names it; null tells it from each file (UTF-8, UTF-16, Latin-1)."""
    images: str | None = None
    """Folder of pictures named by raw item id (`<id>.jpg`, .png, .webp, .gif, .bmp, .tiff)."""
    items: ItemsFile | None = None
    """A file with more texts or pictures of the items."""


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

    source: Literal["bazaar"] = "bazaar"
    users: int = Field(2000, ge=10)
    """Number of users."""
    items: int = Field(1200, ge=20)
    """Number of items."""
    seed: int = Field(7, ge=0)
    """Seed of the world."""
    mean_history: float = Field(12.0, ge=6, le=500)
    """Mean number of interactions a user (log-normal, 5 to 10 times the mean, at most half of the items)."""
    tastes: int = Field(120, ge=4)
    """Tastes that users draw their interests from; memory grows with tastes x items (8 bytes each)."""
    popularity: float = Field(1.3, ge=0, le=3)
    """Exponent of the Zipf law of item popularity; 0 makes all items equally popular."""
    drift: float = Field(0.03, ge=0, le=1)
    """Probability, at every step, that one of a user's interests gives way to another taste."""
    transitions: float = Field(0.45, ge=0, le=0.9)
    """Share of the steps that follow from the item before rather than from an interest."""
    missing: float = Field(0.03, ge=0, le=1)
    """Share of the items without a picture, and, drawn apart, without a description."""
    duplicated: float = Field(0.01, ge=0, le=1)
    """Share of the log's rows that stand in it twice."""
    malformed: float = Field(0.005, ge=0, le=1)
    """Unreadable lines in the log, as a share of the interactions."""
    oracle_users: int = Field(20_000, ge=0)
    """The truth behind each step is kept for so many users, for the oracle."""
    lifelong: Lifelong | None = None
    """Long histories of clicks and impressions, for `task: ctr`: instead of `mean_history`, `drift` and `transitions`
    it is this that says how users go on; nothing of their log is malformed or doubled."""


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
    targets: str | None = None
    """File of one held-out item a user (`user item`, or `item` matched by line), for `split: {kind: given}`."""
    films: str | None = None
    """MovieLens' file of films (`movies.dat`, `u.item` or `movies.csv`), where the items are films."""
    film_ids: str | None = None
    """File of `item film` lines, where the histories number the films anew."""


class MiniOneRecSource(FileSource):
    """MiniOneRec's Amazon samples and item texts; `path` is the folder with train, valid, test and index."""

    source: Literal["minionerec"]
    category: str | None = None
    """Start of the file names, e.g. `Industrial_and_Scientific`, where the folder holds several categories."""


class ColumnsSource(FileSource):
    """Any CSV, Parquet or JSON file, or a folder of parts, by a mapping of columns."""

    source: Literal["columns"]
    user: str = "user"
    """Column of the user."""
    item: str = "item"
    """Column of the item (or of a list of items in time order: JSON, Python or Parquet list)."""
    timestamp: str | None = None
    """Column of the time (unix time of any unit, dates in one of many forms); null takes the order of the rows."""
    rating: str | None = None
    """Column of the rating."""
    split_column: str | None = None
    """Column of the part (train, valid, test or 0, 1, 2), for `split: {kind: given}`."""
    separator: str | None = Field(None, min_length=1, max_length=1)
    """Separator of a text table; null takes the most frequent of tab, comma, semicolon and | in its first line."""


Dataset = Annotated[
    BazaarSource
    | AmazonSource
    | YelpSource
    | MovieLensSource
    | RecBoleSource
    | SequencesSource
    | MiniOneRecSource
    | ColumnsSource,
    Field(discriminator="source"),
]


def source_module(source: str) -> str:
    """The library module that reads a source (not for `bazaar`, which is generated)."""
    return f"tessera.data.sources.{'amazon' if source.startswith('amazon_') else source}"


def ingest_settings(dataset: DatasetSettings) -> dict[str, Any]:
    """What the ingest stage reads: all but cleaning, split and prompt, and the largest share of rejected rows."""
    settings = dataset.model_dump(mode="json", exclude={"cleaning", "split", "prompt"})
    return {**settings, "max_rejected": dataset.cleaning.max_rejected}


def prepare_settings(dataset: DatasetSettings) -> dict[str, Any]:
    """What the prepare stage reads."""
    settings = dataset.model_dump(mode="json", include={"cleaning", "split"})
    del settings["cleaning"]["max_rejected"]
    return settings


def read_ingest_settings(settings: Mapping[str, Any]) -> tuple[FileSource, float]:
    """The inverse of `ingest_settings`: the source and the largest share of rejected rows."""
    source = {key: value for key, value in settings.items() if key != "max_rejected"}
    dataset = TypeAdapter[Any](Dataset).validate_python(source)
    if not isinstance(dataset, FileSource):
        raise ValueError(f"source {settings['source']!r} reads no files")
    return dataset, float(settings["max_rejected"])


def read_prepare_settings(settings: Mapping[str, Any]) -> DatasetSettings:
    """The inverse of `prepare_settings`."""
    return DatasetSettings.model_validate(dict(settings))
