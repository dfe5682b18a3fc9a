"""Any table: CSV, TSV, Parquet or JSON, packed or not, with the columns that the config names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tessera.data.files import DataFileError, find, parts
from tessera.data.identifiers import id_text, may_be_id
from tessera.data.log import Item, RawLog
from tessera.data.packed import open_bytes
from tessera.data.sources.csv_rows import check_columns, csv_frames, csv_records, read_header, whole
from tessera.data.sources.json_forms import json_histories
from tessera.data.sources.json_lines import first_objects, holds_histories, json_objects, json_rows, json_schema
from tessera.data.sources.list_texts import ids_of_list
from tessera.data.sources.parquet_rows import (
    check_types,
    is_parquet,
    parquet_frames,
    parquet_records,
    parquet_schema,
)  # fmt: skip
from tessera.data.text import as_text, as_title
from tessera.settings.datasets import SessionsByColumn
from tessera.settings.sources.base import ItemsFile
from tessera.settings.sources.columns import ColumnsSource

Format = Literal["csv", "json", "parquet"]


def _columns(settings: ColumnsSource) -> dict[str, str]:
    named = {
        "user": settings.user,
        "item": settings.item,
        "timestamp": settings.timestamp,
        "rating": settings.rating,
        "split": settings.split_column,
        "session": settings.sessions.column if isinstance(settings.sessions, SessionsByColumn) else None,
    }
    return {name: column for name, column in named.items() if column is not None}


def read_interactions(settings: ColumnsSource, log: RawLog) -> None:
    """Hand the rows over; where the item column holds lists, each entry is an interaction, in the order of the list."""
    columns, encoding = _columns(settings), settings.encoding
    lists = _Lists(log)
    log.folder = find(settings.path, settings.sha256)
    for path in parts(log.folder):
        form = format_of(path, encoding)
        if form == "json":
            if holds_histories(path, encoding, settings.user, settings.item):
                _refuse_sessions_of(path, columns)
                json_histories(path, log, encoding)
            else:
                json_rows(path, columns, log, encoding)
            continue
        if form == "parquet":
            frames = parquet_frames(path, columns, log)
        else:
            frames = csv_frames(path, columns, read_header(path, settings.separator, encoding), log, encoding)
        for frame in frames:
            log.add(lists.without(frame, path), path)


def check(settings: ColumnsSource) -> None:
    """Read the first lines of the files, and refuse what cannot be read as the config says.

    Raises:
        DataFileError: a file is damaged, or lacks a column.
    """
    columns, encoding = _columns(settings), settings.encoding
    for path in parts(find(settings.path, settings.sha256)):
        form = format_of(path, encoding)
        if form == "parquet":
            check_types(path, columns, parquet_schema(path))
        elif form == "csv":
            check_columns(path, columns, read_header(path, settings.separator, encoding).names)
        elif holds_histories(path, encoding, settings.user, settings.item):
            _refuse_sessions_of(path, columns)
        else:
            json_schema(path, columns, encoding)


def _refuse_sessions_of(path: Path, columns: dict[str, str]) -> None:
    if "session" in columns:
        raise DataFileError(
            f"{path}: holds a list of items by user, and so no column {columns['session']!r} (sessions.column); where "
            "each list is a session, say sessions: {kind: given}"
        )


def read_items(settings: ColumnsSource, log: RawLog) -> Iterator[Item]:
    """A log of columns tells nothing of items; an `items` file may."""
    yield from ()


def format_of(path: Path, encoding: str | None = None) -> Format:
    """Parquet by its first bytes, JSON by its first character, else text with separators."""
    if is_parquet(path):
        return "parquet"
    with open_bytes(path, encoding) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    is_array = start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]")
    return "json" if is_array or start.startswith(b"{") else "csv"


class _Lists:
    """Lists of items written as texts: they are read as JSON or Python lists where most of them look so."""

    def __init__(self, log: RawLog) -> None:
        self._log = log
        self._are_lists: bool | None = None

    def without(self, frame: pl.DataFrame, path: Path) -> pl.DataFrame:
        """The rows of a frame, texts that are lists read as such."""
        if frame.schema["item"] != pl.String:
            return frame
        texts = frame["item"].drop_nulls().str.strip_chars()
        if self._are_lists is None and len(texts):
            # an id may begin with a bracket, and look like a list: the first rows settle what the column holds
            shaped = (texts.str.starts_with("[") & texts.str.ends_with("]")).sum()
            self._are_lists = 2 * shaped > len(texts)
        if not self._are_lists:
            return frame
        kept: list[list[str | None] | None] = []
        for line, text in frame.select("line", "item").iter_rows():
            entries = ids_of_list(text)
            if entries is None:
                self._log.reject(path, line, "item is no list like the others", str(text))
            kept.append(entries)
        lists = pl.Series("item", kept, pl.List(pl.String))
        return frame.with_columns(lists).filter(pl.col("item").is_not_null())


def read_items_file(settings: ItemsFile, log: RawLog) -> Iterator[Item]:
    """Title, text columns and picture name of a table of items; ids may repeat. Of unknown items only the id.

    Raises:
        DataFileError: a column is not there.
    """
    log.folder = find(settings.path, settings.sha256, "items.path")
    for path in parts(log.folder):
        for number, row in _item_rows(path, settings, log):
            raw_id = id_text(row.get(settings.id))
            if raw_id is None:
                if any(value not in (None, "") for value in row.values()):
                    what = "id is missing" if may_be_id(row.get(settings.id)) else "id is neither text nor number"
                    log.reject(path, number, what, whole(str(row)))
                continue
            if not log.knows(raw_id):
                yield Item(raw_id)  # counted; what it says is not looked at
                continue
            texts = {name: as_text(row.get(name)) for name in settings.text}
            image = row.get(settings.image) if settings.image else None
            yield Item(
                raw_id,
                as_title(row.get(settings.title)) if settings.title else None,
                {name: text for name, text in texts.items() if text},
                [str(image)] if image and image == image else [],  # NaN is none
            )


def _wanted(settings: ItemsFile) -> dict[str, str]:
    wanted = {"id": settings.id, **{f"text {name}": name for name in settings.text}}
    return wanted | {key: name for key in ("title", "image") if (name := getattr(settings, key)) is not None}


def check_items_file(settings: ItemsFile) -> None:
    """Read the first lines of a table of items.

    Raises:
        DataFileError: the file is damaged, or lacks a column.
    """
    for path in parts(find(settings.path, settings.sha256, "items.path")):
        form = format_of(path, settings.encoding)
        if form == "parquet":
            check_columns(path, _wanted(settings), parquet_schema(path).names)
        elif form == "csv":
            check_columns(path, _wanted(settings), read_header(path, settings.separator, settings.encoding).names)
        elif first := first_objects(path, settings.encoding):
            _check_keys(path, settings, first[0])
            _check_texts(path, settings, first)


def _check_keys(path: Path, settings: ItemsFile, first: dict[str, Any]) -> None:
    # objects of JSON may leave keys out, tables may not
    if not _is_by_id(first, settings):
        check_columns(path, {"id": settings.id}, list(first))


def _check_texts(path: Path, settings: ItemsFile, first: list[dict[str, Any]]) -> None:
    """Refuse a title or a text that no object has while they have one of nearly that name: few may have a text."""
    rows = [row for one in first for row in (one.values() if _is_by_id(one, settings) else [one])]
    known = dict.fromkeys(key for row in rows for key in row)
    wanted = {name: key for name, key in _wanted(settings).items() if name != "id"}
    for name, key in wanted.items():
        near = difflib.get_close_matches(key, set(known) - {*wanted.values(), settings.id}, n=1, cutoff=0.75)
        if key not in known and near:
            raise DataFileError(
                f"{path}: none of the first objects has the key {key!r} (for {name}); did you mean {near[0]!r}?"
            )


def _is_by_id(value: dict[str, Any], settings: ItemsFile) -> bool:
    """Whether an object holds items by id: `{id: {title: ...}}`."""
    return settings.id not in value and bool(value) and all(isinstance(entry, dict) for entry in value.values())


def _item_rows(path: Path, settings: ItemsFile, log: RawLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (line of a CSV, else row) and fields of every row."""
    form = format_of(path, settings.encoding)
    wanted = _wanted(settings)
    if form == "csv":
        header = read_header(path, settings.separator, settings.encoding)
        yield from csv_records(path, wanted, [settings.id], header, log, settings.encoding)
    elif form == "parquet":
        check_columns(path, wanted, parquet_schema(path).names)
        yield from parquet_records(path, list(dict.fromkeys(wanted.values())), [settings.id], log)
    else:
        yield from enumerate(_json_items(path, settings, log), 1)


def _json_items(path: Path, settings: ItemsFile, log: RawLog) -> Iterator[dict[str, Any]]:
    rows = json_objects(path, log, encoding=settings.encoding)
    first = next(rows, None)
    if first is None:
        return
    _check_keys(path, settings, first)
    for row in chain([first], rows):
        if _is_by_id(row, settings):
            yield from ({settings.id: raw_id, **entry} for raw_id, entry in row.items())
        else:
            yield row
