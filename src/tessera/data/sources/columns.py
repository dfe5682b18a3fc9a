"""Any table: CSV, TSV, Parquet or JSON lines (CSV and JSON also .gz), with the columns that the config names."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from tessera.data.blocks import BLOCK_BYTES, open_bytes
from tessera.data.files import DataFileError, find
from tessera.data.log import Item, RawLog
from tessera.data.sources.json_lines import json_objects, json_rows
from tessera.data.text import as_text, as_title
from tessera.settings.base import did_you_mean
from tessera.settings.datasets import ColumnsSource, ItemsFile

SEPARATORS = "\t,;|"


def read_interactions(settings: ColumnsSource, log: RawLog) -> None:
    """Hand the rows over; where the item column holds lists, each entry is an interaction, in the order of the list."""
    path = find(settings.path, settings.sha256)
    named = {
        "user": settings.user,
        "item": settings.item,
        "timestamp": settings.timestamp,
        "rating": settings.rating,
        "split": settings.split_column,
    }
    columns = {name: column for name, column in named.items() if column is not None}
    form = _format(path)
    if form == "json":
        json_rows(path, columns, log)
        return
    frames = _parquet(path, columns) if form == "parquet" else _csv(path, columns, settings.separator, log)
    for frame in frames:
        log.add(_without_lists(frame, path, log), path)


def read_items(settings: ColumnsSource, log: RawLog) -> Iterator[Item]:
    """A log of columns tells nothing of items; an `items` file may."""
    yield from ()


def _format(path: Path) -> str:
    """Parquet by its first bytes, JSON lines by its first character, else text with separators."""
    with open_bytes(path) as file:
        start = file.read(64)
    if start.startswith(b"PAR1"):
        return "parquet"
    return "json" if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"


def _check(path: Path, columns: dict[str, str], found: list[str]) -> None:
    for name, column in columns.items():
        if column not in found:
            raise DataFileError(f"{path}: has no column {column!r} (for {name}){did_you_mean(column, found)}")


def _parquet(path: Path, columns: dict[str, str]) -> Iterator[pl.DataFrame]:
    file = pq.ParquetFile(path)
    _check(path, columns, file.schema_arrow.names)
    line = 1
    for batch in file.iter_batches(columns=list(dict.fromkeys(columns.values()))):
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
        yield (
            frame.select(**{name: pl.col(column) for name, column in columns.items()})
            .with_row_index("line", offset=line)
            .with_columns(pl.col("line").cast(pl.Int64))
        )
        line += frame.height


def _csv(path: Path, columns: dict[str, str], separator: str | None, log: RawLog) -> Iterator[pl.DataFrame]:
    """Frames of texts; `line` counts records (the header is 1), which are lines unless a field holds a line break."""
    separator = separator or separator_of(path)
    names = _header(path, separator)
    _check(path, columns, names)
    skipped: list[int] = []

    def wrong(row: Any) -> str:
        log.reject(path, row.number, f"{row.actual_columns} fields, expected {row.expected_columns}", row.text)
        skipped.append(row.number)
        return "skip"

    # rows are numbered on one thread only
    read = pc_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names, skip_rows=1)
    parse = pc_csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=wrong)
    wanted = list(dict.fromkeys(columns.values()))
    convert = pc_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=wanted,
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    line = 2
    try:
        for batch in pc_csv.open_csv(open_bytes(path), read, parse, convert):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            numbers, line = _numbers(frame.height, line, skipped)
            selected = frame.select(**{name: pl.col(column) for name, column in columns.items()})
            yield selected.insert_column(0, pl.Series("line", numbers, pl.Int64))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: not a table separated by {separator!r}: {error}") from None


def _numbers(count: int, start: int, skipped: list[int]) -> tuple[list[int], int]:
    """Record numbers of the next `count` rows, those of skipped rows left out, and the one after them."""
    gone = sorted(number for number in skipped if number >= start)
    numbers = range(start, start + count)
    for place, number in enumerate(gone):
        if number - start - place >= count:
            gone = gone[:place]
            break
    if not gone:
        return list(numbers), start + count
    out = set(gone)
    found = [number for number in range(start, start + count + len(gone)) if number not in out]
    return found, start + count + len(gone)


def separator_of(path: Path) -> str:
    """The most frequent of tab, comma, semicolon and | in the first line."""
    return max(SEPARATORS, key=_first_line(path).count)


def _first_line(path: Path) -> str:
    with open_bytes(path) as file:
        return file.readline(1 << 20).decode("utf-8-sig", "replace").rstrip("\r\n")


def _header(path: Path, separator: str) -> list[str]:
    return next(csv.reader([_first_line(path)], delimiter=separator), [])


def _without_lists(frame: pl.DataFrame, path: Path, log: RawLog) -> pl.DataFrame:
    """A row for each entry of a list of items; texts that look like lists are read as JSON or Python lists."""
    if isinstance(frame.schema["item"], pl.List):
        return frame.explode("item")
    if frame.schema["item"] != pl.String or not frame["item"].str.starts_with("[").any():
        return frame
    kept: list[list[str] | None] = []
    for line, text in frame.select("line", "item").iter_rows():
        entries = _list(text)
        if entries is None:
            log.reject(path, line, "item is no list like the others", str(text))
        kept.append(entries)
    lists = pl.Series("item", kept, pl.List(pl.String))
    return frame.with_columns(lists).filter(pl.col("item").is_not_null()).explode("item")


def _list(text: str | None) -> list[str] | None:
    if text is None or not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return [str(entry) for entry in found] if isinstance(found, list) else None


def read_items_file(settings: ItemsFile, log: RawLog) -> Iterator[Item]:
    """Title, text columns and picture name of a table of items; ids may repeat. Of unknown items only the id.

    Raises:
        DataFileError: a column is not there.
    """
    path = find(settings.path, settings.sha256)
    form = _format(path)
    rows: Iterator[dict[str, Any]]
    if form == "json":
        rows = json_objects(path, log)
    elif form == "parquet":
        batches = pq.ParquetFile(path).iter_batches()
        rows = (row for batch in batches for row in batch.to_pylist())
    else:
        rows = _records(path, settings.separator, log)
    wanted = {"id": settings.id, **{f"text {name}": name for name in settings.text}}
    wanted |= {key: name for key in ("title", "image") if (name := getattr(settings, key)) is not None}
    first = next(rows, None)
    if first is None:
        return
    # objects of JSON lines may leave keys out, tables may not
    _check(path, {"id": settings.id} if form == "json" else wanted, list(first))
    for row in chain([first], rows):
        raw_id = row.get(settings.id)
        if raw_id is None or not str(raw_id).strip():
            continue
        if str(raw_id).strip() not in log.items:
            yield Item(str(raw_id).strip())  # counted; what it says is not looked at
            continue
        texts = {name: as_text(row.get(name)) for name in settings.text}
        image = row.get(settings.image) if settings.image else None
        yield Item(
            str(raw_id).strip(),
            as_title(row.get(settings.title)) if settings.title else None,
            {name: text for name, text in texts.items() if text},
            [str(image)] if image else [],
        )


def _records(path: Path, separator: str | None, log: RawLog) -> Iterator[dict[str, Any]]:
    separator = separator or separator_of(path)
    with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=separator)
        try:
            for row in reader:
                if None in row or None in row.values():
                    log.reject(path, reader.line_num, "wrong number of fields", separator.join(map(str, row.values())))
                    continue
                yield row
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataFileError(f"{path}: line {reader.line_num}: {error}") from None
