"""RecBole atomic files (`user_id:token` headers, tab) and MMRec's (`userID itemID rating x_label`, tab)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tessera.artifacts.logs import log as logger
from tessera.data.files import DataFileError, find
from tessera.data.identifiers import id_text
from tessera.data.log import Item, RawLog
from tessera.data.popularity_fields import counts_interactions
from tessera.data.sources.csv_rows import read_header
from tessera.data.sources.samples import Sample, by_whole_columns, longest_history, merged
from tessera.data.sources.text_rows import add_rows, field, text_rows
from tessera.data.times import TimeColumn
from tessera.settings.base import did_you_mean
from tessera.settings.sources.recbole import RecBoleSource

_NAMES = {
    "user": ("user_id", "userID", "session_id"),
    "item": ("item_id", "itemID"),
    "timestamp": ("timestamp", "time"),
    "rating": ("rating",),
    "split": ("x_label",),
}
_TITLES = ("title", "movie_title", "name", "item_name")


def _plain(names: list[str]) -> list[str]:
    """Names of the fields without the types behind the colon."""
    return [name.rsplit(":", 1)[0].strip() for name in names]


def read_interactions(settings: RecBoleSource, log: RawLog) -> None:
    """Hand the rows of the `.inter` file over; rows that hold a history besides their item are merged by user.

    Raises:
        DataFileError: there is no column of users or items.
    """
    path = find(settings.path, settings.sha256)
    samples: list[tuple[str, str | None, Sample]] = []
    for names, frame in text_rows(path, "\t", log, encoding=settings.encoding):
        positions = _places(path, names)
        lists = _list_place(names)
        if lists is None:
            add_rows(log, path, frame, **{key: field(place) for key, place in positions.items()})
        else:
            _collect(path, frame, positions, lists, samples, log)
    if samples:
        _add_samples(path, samples, log)


def check(settings: RecBoleSource) -> None:
    """Read the header."""
    path = find(settings.path, settings.sha256)
    _places(path, read_header(path, "\t", settings.encoding).names)


def _places(path: Path, names: list[str]) -> dict[str, int]:
    plain = _plain(names)
    positions = {key: plain.index(n) for key, known in _NAMES.items() for n in known if n in plain}
    for key in ("user", "item"):
        if key not in positions:
            expected = _NAMES[key][0]
            raise DataFileError(f"{path}: line 1: no column {expected!r}{did_you_mean(expected, plain)}")
    return positions


def _list_place(names: list[str]) -> int | None:
    plain = _plain(names)
    return next((plain.index(f"{name}_list") for name in _NAMES["item"] if f"{name}_list" in plain), None)


def _collect(
    path: Path,
    frame: pl.DataFrame,
    positions: dict[str, int],
    lists: int,
    samples: list[tuple[str, str | None, Sample]],
    log: RawLog,
) -> None:
    """The samples of a file that RecBole split into histories and targets, with their user and the target's time."""
    for line, text, fields in frame.select("line", "text", "fields").iter_rows():
        user, target = id_text(fields[positions["user"]]), id_text(fields[positions["item"]])
        if not user or not target:
            log.reject(path, line, f"{'item' if user else 'user'} is missing", text)
            continue
        time = fields[positions["timestamp"]] if "timestamp" in positions else None
        samples.append((user, time, Sample(path, line, "train", fields[lists].split(), target)))


def _add_samples(path: Path, samples: list[tuple[str, str | None, Sample]], log: RawLog) -> None:
    logger.warning(
        "%s: its histories (item_id_list) are merged by user; times and ratings of targets are not kept", path
    )
    by_user: dict[str, list[tuple[int, Sample]]] = {}
    for (user, _, sample), time in zip(samples, _times(path, samples, log), strict=True):
        if time is not None:
            by_user.setdefault(user, []).append((time, sample))
    in_order = by_whole_columns(
        {
            user: [sample for _, sample in sorted(numbered, key=lambda pair: pair[0])]
            for user, numbered in by_user.items()
        }
    )
    longest = longest_history(in_order)
    rows = [
        (line, user, item)
        for user, samples in in_order.items()
        for line, item, _ in merged(user, samples, longest, log)
    ]
    log.add(pl.DataFrame(rows, {"line": pl.Int64, "user": pl.String, "item": pl.String}, orient="row"), path)


def _times(path: Path, samples: list[tuple[str, str | None, Sample]], log: RawLog) -> list[int | None]:
    """Of every target, 0 where the file tells none; those of a row that is rejected are None."""
    texts = pl.Series([time for _, time, _ in samples], dtype=pl.String)
    if texts.null_count() == len(texts):
        return [0] * len(texts)
    column = TimeColumn([texts])
    column.read(texts)  # the unit of all of them
    read: list[int | None] = column.read(texts).to_list()
    for (user, text, sample), time in zip(samples, read, strict=True):
        if time is None:
            log.reject(path, sample.line, column.reason(text), f"{user}: {sample.history} -> {sample.target}")
    return read


def check_items(settings: RecBoleSource) -> None:
    """Read the header of the `.item` file."""
    if settings.items_file is not None:
        path = find(settings.items_file)
        _item_key(path, _plain(read_header(path, "\t", settings.encoding).names))


def _item_key(path: Path, plain: list[str]) -> str:
    """The column of the item id.

    Raises:
        DataFileError: there is none.
    """
    key = next((name for name in _NAMES["item"] if name in plain), None)
    if key is None:
        raise DataFileError(f"{path}: line 1: no column 'item_id'{did_you_mean('item_id', plain)}")
    return key


def read_items(settings: RecBoleSource, log: RawLog) -> Iterator[Item]:
    """Every column of the `.item` file but the id and what counts interactions; token sequences stay one text."""
    if settings.items_file is None:
        return
    path = find(settings.items_file)
    left_out: set[str] = set()
    for names, frame in text_rows(path, "\t", log, encoding=settings.encoding):
        plain = _plain(names)
        key = _item_key(path, plain)
        title = next((name for name in _TITLES if name in plain), None)
        counts = set(filter(counts_interactions, plain))
        if counts - left_out:
            logger.warning(
                "%s: left out, since held-out interactions are counted in it: %s", path, ", ".join(sorted(counts))
            )
            left_out |= counts
        for fields in frame["fields"]:
            row = dict(zip(plain, fields, strict=True))
            attributes = {name: text for name, text in row.items() if text and name not in {key, title, *counts}}
            yield Item(row[key], row[title] if title else None, attributes)
