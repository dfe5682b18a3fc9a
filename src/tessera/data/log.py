"""The raw log: what every source is turned into before anything is decided about it.

Sources hand over frames of rows as they read them; rows that cannot be used are set aside with file, line and reason.
Nothing is held in memory but the item ids, the rejected rows, one frame, and at the start as many rows as it takes to
see what the times mean.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from tessera.artifacts.files import atomic
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import write_table
from tessera.data.clock import SECONDS, Clock
from tessera.data.identifiers import id_texts, twin, without_points
from tessera.data.raw_file import RawFile
from tessera.data.times import ACCEPTED, SAMPLE_ROWS, TimeColumn

LineText = Callable[[int], str | None]
TEXT_LENGTH = 300
_FIELDS = re.compile(r"\d+ fields, expected")
REJECTED_KEPT = 100_000
SESSION = "/"
"""Between a user and its session in the id of the session; a user's own stand there as %2F."""
_SPLITS = {
    "train": "train",
    "valid": "valid",
    "test": "test",
    "0": "train",
    "1": "valid",
    "2": "test",
    **dict.fromkeys(("val", "dev", "validation"), "valid"),
}


class RejectedError(ValueError):
    """More rows are unreadable than the config allows."""


@dataclass
class Item:
    """What a source says of an item."""

    raw_id: str
    title: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    image_names: list[str] = field(default_factory=list)
    """File names that its picture may have in the `images` folder, besides the raw id."""


def _checked(frame: pl.DataFrame, times: TimeColumn | None) -> pl.DataFrame:
    """The columns of the log as they could be read, with `bad`: whether something in the row could not."""
    has = frame.schema
    columns = {
        "user": id_texts(pl.col("user"), has["user"]),
        "item": id_texts(pl.col("item"), has["item"]),
        "timestamp": pl.lit(None, pl.Int64),
        "rating": pl.lit(None, pl.Float32),
        "split": pl.lit(None, pl.String),
    }
    if "session" in has:  # a session is read within its user
        columns["session"] = without_points(id_texts(pl.col("session"), has["session"]))
        user = without_points(columns["user"]).str.replace_all("%", "%25", literal=True)
        user = user.str.replace_all(SESSION, "%2F", literal=True)
        columns["user"] = pl.concat_str(user, columns["session"], separator=SESSION)
    bad = pl.col("user").is_null() | pl.col("item").is_null()
    if "timestamp" in has and times is not None:
        columns["timestamp"] = pl.lit(times.read(frame["timestamp"]))
        bad |= pl.col("timestamp").is_null()
    if "rating" in has:
        rating = pl.col("rating").str.strip_chars() if has["rating"] == pl.String else pl.col("rating")
        columns["rating"] = rating.cast(pl.Float32, strict=False)
        columns["rating_said"] = rating
        said = pl.col("rating_said").is_not_null()
        if has["rating"] == pl.String:
            said &= pl.col("rating_said") != ""
        elif has["rating"].is_float():  # NaN stands for none there
            said &= pl.col("rating_said").is_not_nan()
        bad |= said & ~pl.col("rating").is_finite().fill_null(False)
    if "split" in has:
        text = pl.col("split").cast(pl.String).str.strip_chars()
        text = text.str.strip_suffix(".0").str.to_lowercase()  # a column of numbers with gaps has them
        columns["split"] = text.replace_strict(_SPLITS, default=None)
        columns["split_said"] = text.is_not_null() & (text != "") & (text != "nan")
        bad |= pl.col("split_said") & pl.col("split").is_null()
    return frame.select("line", **columns).with_columns(bad=bad)


def _reason(said: dict[str, Any], read: dict[str, Any], times: TimeColumn | None) -> str:
    """Why a row is bad, from what the source said and what was read of it."""
    for name in ("user", "item"):
        if not read[name]:
            no_session = name == "user" and "session" in read and not read["session"]
            return f"{'session' if no_session else name} is missing"
    if times is not None and "timestamp" in said and read["timestamp"] is None:
        return times.reason(said["timestamp"])
    rating = read["rating"]
    if str(said.get("rating") or "").strip() and (rating is None or not math.isfinite(rating)):
        return f"rating {said['rating']} is no number"
    return f"split {said.get('split')} is unknown, expected train, valid or test, or 0, 1, 2"


class RawLog:
    """Takes frames of rows and writes them on; use inside `open_log`."""

    folder: Path | None = None
    """Of what is read from a folder: rejected rows name their file from there, for its parts may have equal names."""

    def __init__(self, path: Path, settings: Mapping[str, Any], progress: Progress) -> None:
        self._file = RawFile(path, settings)
        self._progress = progress
        self._times: TimeColumn | None = None
        self._waiting: list[tuple[pl.DataFrame, Path, LineText | None]] = []
        self._waiting_rows = 0
        self._rejected: list[tuple[str, int, str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.items: set[str] = set()
        """Raw ids of the items; complete after `finish`."""
        self.described = 0
        """Readable objects of files that describe items."""
        self.whole = False
        """Whether items that the log does not know are wanted, too."""

    @property
    def _clock(self) -> Clock:
        return self._times.clock if self._times is not None else SECONDS

    @property
    def rows(self) -> int:
        """Rows taken; complete after `finish`."""
        return self._file.rows

    def add(self, frame: pl.DataFrame, file: Path, text: LineText | None = None) -> None:
        """Take rows in the order of the source.

        Args:
            frame: columns `line` (number in the file), `user`, `item` and optionally `timestamp`, `rating`, `split`
                and `session`, which makes the user a session of it. Where `timestamp` stands, a row without a time is
                rejected. Of lists in `item` each entry is a row, and an empty one is a rejected row.
            file: what rejected rows are said to come from.
            text: the source's own text of a line number, for rejected rows; without it the values are shown.
        """
        if isinstance(frame.schema["item"], pl.List):
            frame = self._taken_apart(frame, file, text)
        self._progress.update(frame.height)
        if self._times is None and "timestamp" in frame.schema:
            # what the times mean is decided from many rows
            self._waiting.append((frame, file, text))
            self._waiting_rows += frame.height
            if self._waiting_rows >= SAMPLE_ROWS:
                self._start()
            return
        self._take(frame, file, text)

    def _taken_apart(self, frame: pl.DataFrame, file: Path, text: LineText | None) -> pl.DataFrame:
        """A row for each entry of the lists of items; of a missing list one without an item."""
        empty = (pl.col("item").list.len() == 0).fill_null(False)
        for values in frame.filter(empty).iter_rows(named=True):
            line = values.pop("line")
            self.reject(file, line, "the list of items is empty", (text(line) if text else None) or str(values))
        return frame.filter(~empty).explode("item")

    def _start(self) -> None:
        sample = [frame["timestamp"] for frame, _, _ in self._waiting]
        self._times = TimeColumn(sample)
        for column in sample if len(sample) > 1 else []:  # the unit of all of them, before the first is written
            self._times.read(column)
        for rows in self._waiting:
            self._take(*rows)
        self._waiting.clear()

    def _take(self, frame: pl.DataFrame, file: Path, text: LineText | None) -> None:
        checked = _checked(frame, self._times)
        if checked["bad"].any():
            said = frame.filter(checked["bad"]).iter_rows(named=True)
            for values, read in zip(said, checked.filter("bad").iter_rows(named=True), strict=True):
                line = values.pop("line")
                shown = (text(line) if text else None) or str(values)
                self.reject(file, line, _reason(values, read, self._times), shown)
            checked = checked.filter(~pl.col("bad"))
        self._file.write(checked, self._clock, file)
        self.items.update(checked["item"].unique().to_list())

    def finish(self) -> None:
        """Write what waits, and settle what all rows together say: the unit of the times, ids that are numbers."""
        if self._waiting:
            self._start()
        if "item" in self._file.close(self._clock):
            self.items = {raw_id.removesuffix(".0") for raw_id in self.items}

    def abandon(self) -> None:
        """Close the file as it is; without effect after `finish`."""
        self._file.abandon()

    def knows(self, raw_id: str | None) -> bool:
        """Whether an item is wanted: the log has it, by this id or the other way to write its number, or all are."""
        return raw_id is not None and (self.whole or raw_id in self.items or twin(raw_id) in self.items)

    def reject(self, file: Path, line: int, reason: str, text: str) -> None:
        """Set a row aside."""
        self.reasons[_general(reason)] += 1
        if len(self._rejected) < REJECTED_KEPT:
            self._rejected.append((self._name(file), line, reason, text[:TEXT_LENGTH]))

    def _name(self, file: Path) -> str:
        if self.folder is not None and self.folder in file.parents:
            return file.relative_to(self.folder).as_posix()
        return file.name

    def check_rejected(self, accepted: int, largest_share: float, before: int = 0) -> None:
        """Refuse a source with too many rejected rows; the first `before` of them belong to other files.

        Raises:
            RejectedError: their share is above `largest_share`.
        """
        count = self.reasons.total() - before
        share = count / max(count + accepted, 1)
        if share <= largest_share:
            return
        first = self._rejected[before : before + 1] or self._rejected[-1:]
        file, line, reason, text = first[0]
        raise RejectedError(
            f"{file}: {count:,} of {count + accepted:,} rows ({share:.1%}) are unreadable, more than "
            f"cleaning.max_rejected = {largest_share:g}; {self.told_reasons()}; "
            f"first: line {line}: {reason}: {text!r}"
            + (f"; accepted times: {ACCEPTED}" if reason.startswith("timestamp") else "")
            + ("; a file in another encoding needs the key `encoding`" if "utf-8" in reason else "")
        )

    def told_reasons(self) -> str:
        """The reasons with their numbers, most frequent first; beyond five the others together."""
        ranked = self.reasons.most_common()
        shown = [f"{reason}: {n:,}" for reason, n in ranked[:5]]
        others = sum(n for _, n in ranked[5:])
        return ", ".join([*shown, f"{len(ranked) - 5} other reasons: {others:,}"] if others else shown)

    def tell_rejected(self, path: Path) -> None:
        """Say on the console how many rows are rejected and why, with the first of them."""
        count = self.reasons.total()
        if not count:
            return
        file, line, reason, text = self._rejected[0]
        kept = "" if count == len(self._rejected) else f" (the first {len(self._rejected):,})"
        log.warning(
            "rejected %s rows (%s), kept in %s%s; first: %s: line %s: %s: %r",
            f"{count:,}", self.told_reasons(), path, kept, file, line, reason, text,
        )  # fmt: skip

    @property
    def kept(self) -> int:
        """Rejected rows that `write_rejected` writes: all, or of very many the first."""
        return len(self._rejected)

    def write_rejected(self, path: Path) -> None:
        """Write the rejected rows (of very many, the first), by file and line."""
        files = {row[0]: place for place, row in reversed(list(enumerate(self._rejected)))}
        ordered = sorted(self._rejected, key=lambda row: (files[row[0]], row[1]))
        columns = zip(*ordered, strict=True) if ordered else [[]] * 4
        names = ("file", "line", "reason", "text")
        write_table(path, pa.table({n: list(c) for n, c in zip(names, columns, strict=True)}), "rejected")


class ItemsLog(RawLog):
    """For a file of items that belongs to no log: every item is wanted, and rejected rows are counted."""

    def __init__(self) -> None:
        self._rejected = []
        self.reasons = Counter()
        self.items = set()
        self.described = 0
        self.whole = True


def _general(reason: str) -> str:
    """A reason without the value of its row, to be counted."""
    for start in ("timestamp", "rating", "split"):
        if reason.startswith(start) and not reason.endswith("missing"):
            return f"{start} is unreadable"
    if _FIELDS.match(reason):
        return "wrong number of fields"
    return reason.split(" (", 1)[0].split(":", 1)[0]


@contextmanager
def open_log(path: Path, settings: dict[str, Any]) -> Iterator[RawLog]:
    """Write raw interactions to `path`, atomically, while the block runs."""
    with atomic(path) as temporary, Progress("reading interactions", unit="rows") as progress:
        raw = RawLog(temporary, settings, progress)
        try:
            yield raw
            raw.finish()
        finally:
            raw.abandon()
