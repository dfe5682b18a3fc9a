"""What the sources of raw logs share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from tessera.settings.base import Settings
from tessera.settings.datasets import (
    Cleaning,
    GlobalTemporal,
    LeaveOneOut,
    Sessions,
    SessionsByColumn,
    SessionsByGap,
    SessionSplit,
    Split,
)  # fmt: skip
from tessera.settings.kinds import Kind, KindOf
from tessera.settings.language import ItemPrompt

if TYPE_CHECKING:
    from tessera.settings.config import Config


class Preparation(Settings):
    """How a log becomes a dataset: what the prepare stage reads."""

    cleaning: Cleaning = Field(default_factory=Cleaning)
    """Filters and counts between the log and the dataset."""
    split: Split = Field(default_factory=LeaveOneOut)
    """How interactions are divided into train, valid and test."""
    sessions: Sessions | None = None
    """What a session is, where sessions take the place of users: `{kind: gap, minutes: 30}`, `{kind: column, column:
    session}` or `{kind: given}`. They are then split by `{kind: sessions}` unless `split` says otherwise, sessions of
    one item are dropped, and `cleaning.core` keeps sessions of 2 items unless it says otherwise."""
    catalogue: Literal["log", "all"] = "log"
    """Which items there are: `log`, those with an interaction that cleaning keeps; `all`, also those that the source or
    `items` tells of and nobody met. They have texts and pictures, are ranked with all others, and train nothing."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_sessions(cls, data: Any) -> Any:
        """Sessions are short, and held out as a whole: both go without saying."""
        if not isinstance(data, Mapping) or data.get("sessions") is None:
            return data
        data = {"split": {"kind": "sessions"}, **data}
        cleaning = data.get("cleaning", {})
        if isinstance(cleaning, Mapping):
            core = cleaning.get("core", {})
            if isinstance(core, Mapping):
                data["cleaning"] = {**cleaning, "core": {"users": 2, **core}}
        return data

    @model_validator(mode="after")
    def _sessions_are_split_as_a_whole(self) -> Preparation:
        kind = self.split.kind
        if self.sessions is None and kind == "sessions":
            raise ValueError("split: sessions: needs the key `sessions`, which says what a session is")
        if self.sessions is not None and kind not in ("sessions", "given", "none"):
            raise ValueError(
                f"split: {kind} would divide a session; with `sessions` it is {{kind: sessions}}, or {{kind: given}}"
            )
        return self

    @model_validator(mode="after")
    def _last_meetings_are_of_no_held_out_part(self) -> Preparation:
        if self.cleaning.repeats == "last" and self.split.kind in ("global_temporal", "sessions", "given"):
            raise ValueError(
                f"cleaning.repeats: 'last' lets what split {self.split.kind} holds out take earlier rows out of the "
                "training part; take 'first', or 'keep'"
            )
        return self

    @model_validator(mode="after")
    def _train_core_needs_a_fixed_train_part(self) -> Preparation:
        core = self.cleaning.core
        if core is not None and core.on == "train" and isinstance(self.split, LeaveOneOut):
            raise ValueError(
                "cleaning.core.on: 'train' needs split global_temporal, sessions or given; under leave_one_out every "
                "row removed would move the split"
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


def _separates(value: str) -> str:
    if len(value) != 1:
        tab = '; a tab is "\\t", in double quotes' if value.lower() in ("\\t", "tab") else ""
        raise ValueError(f"expected one character{tab} (got {value!r})")
    if value in '"\r\n':
        raise ValueError(f"{value!r} ends a line or encloses a field, and separates none; expected a character like ;")
    return value


Separator = Annotated[
    str, AfterValidator(_separates), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1})
]
"""What stands between the fields of a text table: one character."""
Encoding = Annotated[str | None, AfterValidator(_is_encoding)]


class DatasetSettings(Preparation, Kind):
    """What every source shares."""

    NAMES_SESSIONS: ClassVar[bool] = False
    """Whether a column of its files may name sessions."""

    source: str
    """Where the dataset comes from."""
    prompt: ItemPrompt = Field(default_factory=ItemPrompt)
    """How an item is told to a language model."""

    @model_validator(mode="after")
    def _has_a_column_of_sessions(self) -> DatasetSettings:
        if isinstance(self.sessions, SessionsByColumn) and not self.NAMES_SESSIONS:
            raise ValueError(
                f"sessions: source {self.source!r} has no column {self.sessions.column!r} that could be named; "
                "a session is told by a gap here, {kind: gap, minutes: 30}, or read the files by source: columns"
            )
        return self

    @property
    def attributes(self) -> list[str] | None:
        """The attributes of the items, where they are known before anything is read."""
        return None

    @property
    def timeless(self) -> bool:
        """Whether it is known before anything is read that the log has no times."""
        return False

    @property
    def unrated(self) -> bool:
        """Whether it is known before anything is read that the log has no ratings."""
        return False

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """What needs times or ratings of a log without them."""
        for name in ("since", "until"):
            if self.timeless and getattr(self.cleaning, name) is not None:
                yield f"cleaning.{name}", "needs times, and the log has none"
        if self.unrated and self.cleaning.min_rating is not None:
            yield "cleaning.min_rating", "needs ratings, and the log has none: name their column in `rating`"
        if self.timeless and isinstance(self.split, GlobalTemporal):
            yield "split", "global_temporal needs times, and the log has none; use leave_one_out or given"

        by_time = isinstance(self.split, SessionSplit) or isinstance(self.sessions, SessionsByGap)
        if self.timeless and self.sessions is not None and by_time:
            yield (
                "sessions",
                "a gap, and a split of sessions, need times, and the log has none; use kind and split given",
            )


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
    separator: Separator | None = None
    """Separator of a text table; null takes the most frequent of tab, comma, semicolon and | in its first line."""
    encoding: Encoding = None
    """Encoding of a text file, as Python names it; null tells it from the file (UTF-8, UTF-16, Latin-1)."""

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """Also a column that would be told under the name of the title: some readers take one of the two."""
        yield from super().problems(config)
        if self.title is not None and "title" in self.text:
            also = f"would be told under one name with the column {self.title!r}, which `title` names"
            yield "text", f"'title' {also}; leave it out, or rename it in the file"


class FileSource(DatasetSettings):
    """A source that reads files."""

    READS_FOLDER: ClassVar[bool] = False
    """Whether `path` is a folder of several files, which no URL gives."""
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

    def problems(self, config: Config) -> Iterator[tuple[str, str]]:
        """A key that could do nothing."""
        yield from super().problems(config)
        if self.items is not None and self.items.image is not None and self.images is None:
            yield "items.image", "names pictures, and no folder holds them: say which in `images`"


Dataset = Annotated[DatasetSettings, KindOf("sources")]


def ingest_settings(dataset: DatasetSettings) -> dict[str, Any]:
    """What the ingest stage reads: all but cleaning, split and prompt, and the largest share of rejected rows.

    Of sessions it reads a column of theirs alone.

    The catalogue is read where there are files: items that nobody met are kept only where they are wanted.
    """
    settings = dataset.model_dump(mode="json", exclude={"cleaning", "split", "prompt"})
    if not isinstance(dataset.sessions, SessionsByColumn):
        del settings["sessions"]  # cut when the log has been read
    if not isinstance(dataset, FileSource):
        del settings["catalogue"]  # a world writes all of its items
    return {**settings, "max_rejected": dataset.cleaning.max_rejected}


def prepare_settings(dataset: DatasetSettings) -> dict[str, Any]:
    """What the prepare stage reads."""
    settings = dataset.model_dump(mode="json", include={"cleaning", "split", "sessions", "catalogue"})
    del settings["cleaning"]["max_rejected"]
    return settings


def read_ingest_settings(settings: Mapping[str, Any]) -> tuple[FileSource, float]:
    """The inverse of `ingest_settings`: the source and the largest share of rejected rows."""
    source = {key: value for key, value in settings.items() if key != "max_rejected"}
    source["split"] = {"kind": "none"}  # not known here; that of sessions, the default, would ask for times
    dataset = TypeAdapter[Any](Dataset).validate_python(source)
    if not isinstance(dataset, FileSource):
        raise ValueError(f"source {settings['source']!r} reads no files")
    return dataset, float(settings["max_rejected"])


def read_prepare_settings(settings: Mapping[str, Any]) -> Preparation:
    """The inverse of `prepare_settings`."""
    return Preparation.model_validate(dict(settings))
