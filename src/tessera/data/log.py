"""The raw log: what every source is turned into before anything is decided about it.

Sources hand over frames of rows as they read them; rows that cannot be used are set aside with file, line and reason.
Nothing is held in memory but the item ids, the rejected rows and one frame.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tessera.artifacts.files import atomic
from tessera.artifacts.logs import Progress, log
from tessera.artifacts.tables import RAW_INTERACTIONS, metadata, write_table

# `row` counts up: its differences take no room, while a dictionary of it is built in vain
_STORED: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name in RAW_INTERACTIONS.names if name != "row"],
    "column_encoding": {"row": "DELTA_BINARY_PACKED"},
}
TEXT_LENGTH = 300
_FIELDS = re.compile(r"\d+ fields, expected")
REJECTED_KEPT = 100_000
_TIME_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f")
_ZONED_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
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


def seconds(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Unix seconds from numbers (seconds, or milli-, micro-, nanoseconds, told by their size), dates or ISO texts."""
    if dtype.is_temporal():
        return column.cast(pl.Datetime("us")).dt.epoch("s")
    number = column.cast(pl.Float64, strict=False)
    size = number.abs()
    scale = pl.when(size < 1e11).then(1.0).when(size < 1e14).then(1e3).when(size < 1e17).then(1e6).otherwise(1e9)
    whole = (number / scale).floor().cast(pl.Int64, strict=False)
    if dtype != pl.String:
        return whole
    plain = [column.str.to_datetime(form, strict=False, time_unit="us") for form in _TIME_FORMATS]
    zoned = [
        column.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC").dt.replace_time_zone(None)
        for form in _ZONED_FORMATS
    ]
    return pl.coalesce(whole, *(moment.dt.epoch("s") for moment in [*plain, *zoned]))


def _checked(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of the log as they could be read, with `bad`: whether something in the row could not."""
    has = frame.schema
    columns = {
        "user": pl.col("user").cast(pl.String).str.strip_chars(),
        "item": pl.col("item").cast(pl.String).str.strip_chars(),
        "timestamp": pl.lit(None, pl.Int64),
        "rating": pl.lit(None, pl.Float32),
        "split": pl.lit(None, pl.String),
    }
    bad = (pl.col("user").fill_null("") == "") | (pl.col("item").fill_null("") == "")
    if "timestamp" in has:
        columns["timestamp"] = seconds(pl.col("timestamp"), has["timestamp"])
        bad |= pl.col("timestamp").is_null()
    if "rating" in has:
        columns["rating"] = pl.col("rating").cast(pl.Float32, strict=False)
        said = pl.col("rating_said").is_not_null()
        if has["rating"] == pl.String:
            said &= pl.col("rating_said") != ""
        bad |= said & (pl.col("rating").is_null() | pl.col("rating").is_nan())
        columns["rating_said"] = pl.col("rating")
    if "split" in has:
        columns["split"] = pl.col("split").cast(pl.String).str.to_lowercase().replace_strict(_SPLITS, default=None)
        columns["split_said"] = pl.col("split").is_not_null()
        bad |= pl.col("split_said") & pl.col("split").is_null()
    return frame.select("line", **columns).with_columns(bad=bad)


def _reason(said: dict[str, Any], read: dict[str, Any]) -> str:
    """Why a row is bad, from what the source said and what was read of it."""
    for name in ("user", "item"):
        if not read[name]:
            return f"{name} is missing"
    if "timestamp" in said and read["timestamp"] is None:
        return f"timestamp {said['timestamp']} is no time" if said["timestamp"] is not None else "timestamp is missing"
    rating = read["rating"]
    if said.get("rating") not in (None, "") and (rating is None or math.isnan(rating)):
        return f"rating {said['rating']} is no number"
    return f"split {said.get('split')} is unknown"


class RawLog:
    """Takes frames of rows and writes them on; use inside `open_log`."""

    def __init__(self, writer: pq.ParquetWriter, progress: Progress) -> None:
        self._writer = writer
        self._progress = progress
        self._rejected: list[tuple[str, int, str, str]] = []
        self.reasons: Counter[str] = Counter()
        self.rows = 0
        self.items: set[str] = set()
        """Raw ids of the items met so far."""
        self.described = 0
        """Readable objects of files that describe items."""

    def add(self, frame: pl.DataFrame, file: Path, text: Callable[[int], str] | None = None) -> None:
        """Take rows in the order of the source.

        Args:
            frame: columns `line` (number in the file), `user`, `item` and optionally `timestamp`, `rating`, `split`.
                Where `timestamp` stands, a row without a time is rejected.
            file: what rejected rows are said to come from.
            text: the source's own text of a line number, for rejected rows; without it the values are shown.
        """
        checked = _checked(frame)
        if checked["bad"].any():
            said = frame.filter(checked["bad"]).iter_rows(named=True)
            for values, read in zip(said, checked.filter("bad").iter_rows(named=True), strict=True):
                line = values.pop("line")
                self.reject(file, line, _reason(values, read), text(line) if text else str(values))
            checked = checked.filter(~pl.col("bad"))
        rows = checked.with_row_index("row", offset=self.rows)
        self._writer.write_table(rows.select(RAW_INTERACTIONS.names).to_arrow().cast(RAW_INTERACTIONS))
        self.rows += rows.height
        self.items.update(rows["item"].unique().to_list())
        self._progress.update(frame.height)

    def reject(self, file: Path, line: int, reason: str, text: str) -> None:
        """Set a row aside."""
        self.reasons[_general(reason)] += 1
        if len(self._rejected) < REJECTED_KEPT:
            self._rejected.append((file.name, line, reason, text[:TEXT_LENGTH]))

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
    schema = RAW_INTERACTIONS.with_metadata(metadata("raw_interactions", settings))
    with (
        atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, **_STORED) as writer,
        Progress("reading interactions", unit="rows") as progress,
    ):
        yield RawLog(writer, progress)
