"""Parquet files: their columns, checked by type before anything is read, and errors that name the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from tessera.data.files import DataFileError
from tessera.data.log import RawLog
from tessera.data.packed import head
from tessera.data.sources.arrow_columns import Decoded, as_written, decoded, is_list, plain, without_zone
from tessera.data.sources.csv_rows import check_columns

MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its first bytes.

    Raises:
        DataFileError: it is, but packed.
    """
    if not head(path, 4).startswith(MAGIC):
        return False
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise DataFileError(f"{path}: Parquet that is packed once more; unpack it")
    return True


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise DataFileError(f"{path}: Parquet of a kind that is not read ({error})") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataFileError(f"{path}: damaged or incomplete Parquet ({reason}); fetch or copy the file again") from None


def parquet_schema(path: Path) -> pa.Schema:
    """The columns of a file; those that its folders tell (`day=3/part-0.parquet`) are texts behind them.

    Raises:
        DataFileError: it is damaged.
    """
    with _named(path):
        schema = pq.read_schema(path)
    for name in folder_values(path):
        schema = schema if name in schema.names else schema.append(pa.field(name, pa.string()))
    return schema


def folder_values(path: Path) -> dict[str, str]:
    """What the names of the folders say of all rows of a file, as Spark and Hive write it."""
    pairs = (name.split("=", 1) for name in path.parent.parts if "=" in name)
    return {key: unquote(value) for key, value in pairs}


def check_types(path: Path, columns: Mapping[str, str], schema: pa.Schema, lists: bool = True) -> None:
    """Refuse columns that hold no ids, times, ratings or parts.

    Args:
        lists: whether the items may stand in lists.
    Raises:
        DataFileError: there is one, or it is missing.
    """
    check_columns(path, dict(columns), schema.names)
    for name, column in columns.items():
        kind = schema.field(column).type
        inner = plain(kind)
        if lists and name == "item" and is_list(inner):
            inner = plain(inner.value_type)
        text = pt.is_string(inner) or pt.is_large_string(inner) or pt.is_binary(inner) or pt.is_large_binary(inner)
        number = pt.is_integer(inner) or pt.is_floating(inner) or pt.is_decimal(inner)
        moment = name == "timestamp" and (pt.is_timestamp(inner) or pt.is_date(inner))
        if not (text or number or moment or pt.is_null(inner) or pt.is_string_view(inner)):
            expected = "numbers, texts, dates or timestamps" if name == "timestamp" else "texts or numbers"
            raise DataFileError(f"{path}: column {column!r} (for {name}) holds {kind}, expected {expected}")


def parquet_frames(path: Path, columns: Mapping[str, str], log: RawLog) -> Iterator[pl.DataFrame]:
    """The wanted columns as frames with `line`, the number of the row from 1.

    Args:
        columns: name in the frame -> name in the file. Bytes that are no text make a row a rejected one.
    Raises:
        DataFileError: the file is damaged, or a column is missing or of a wrong type.
    """
    check_types(path, columns, parquet_schema(path))
    for batch in _batches(path, list(dict.fromkeys(columns.values()))):
        frame = pl.DataFrame(
            {name: pl.from_arrow(without_zone(batch.columns[column])) for name, column in columns.items()}
        )
        frame = frame.with_row_index("line", offset=batch.first).with_columns(pl.col("line").cast(pl.Int64))
        broken = batch.broken(columns)
        for row, name in broken.items():
            shown = " ".join("" if value is None else str(value) for value in frame.row(row)[1:])
            log.reject(path, batch.first + row, f"{name} is not utf-8 text", shown)
        yield frame.filter(~pl.col("line").is_in([batch.first + row for row in broken])) if broken else frame


class _Batch(NamedTuple):
    """Rows of a file."""

    first: int
    """Number of the first of them, from 1."""
    columns: dict[str, pa.Array]
    without_text: dict[str, list[int]]
    """Columns in which bytes are no text -> the rows, from 0."""

    def broken(self, columns: Mapping[str, str]) -> dict[int, str]:
        """The rows with bytes that are no text in one of the columns, and what it is for."""
        rows: dict[int, str] = {}
        for name, column in columns.items():
            rows = dict.fromkeys(self.without_text.get(column, ()), name) | rows
        return dict(sorted(rows.items()))


def _batches(path: Path, names: list[str]) -> Iterator[_Batch]:
    constants = folder_values(path)
    first = 1
    with _named(path):
        # the old form of times, a day and nanoseconds, reaches further than nanoseconds in 64 bits do
        file = pq.ParquetFile(path, coerce_int96_timestamp_unit="us")
        own = [name for name in names if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=own):
            columns = {name: decoded(batch.column(name)) for name in own}
            for name in names:
                if name not in own:
                    columns[name] = Decoded(pa.repeat(constants[name], batch.num_rows), [])
            broken = {name: column.broken for name, column in columns.items() if column.broken}
            yield _Batch(first, {name: column.column for name, column in columns.items()}, broken)
            first += batch.num_rows


def parquet_records(
    path: Path, names: list[str], ids: Collection[str], log: RawLog
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and fields by name of every row.

    Args:
        ids: columns in which bytes that are no text make a row a rejected one; elsewhere they are replaced.
    """
    for batch in _batches(path, names):
        broken = batch.broken({name: name for name in ids})
        columns = {name: as_written(column) for name, column in batch.columns.items()}
        rows = pa.RecordBatch.from_pydict(columns).to_pylist()
        for row, fields in enumerate(rows):
            if row in broken:
                log.reject(path, batch.first + row, f"{broken[row]} is not utf-8 text", str(fields))
            else:
                yield batch.first + row, fields
