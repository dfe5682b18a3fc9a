"""Parquet files: their columns, checked by type before anything is read, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from tessera.data.files import DataFileError
from tessera.data.packed import head
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
        inner = _plain(kind)
        if lists and name == "item" and _is_list(inner):
            inner = _plain(inner.value_type)
        text = pt.is_string(inner) or pt.is_large_string(inner) or pt.is_binary(inner) or pt.is_large_binary(inner)
        number = pt.is_integer(inner) or pt.is_floating(inner) or pt.is_decimal(inner)
        moment = name == "timestamp" and (pt.is_timestamp(inner) or pt.is_date(inner))
        if not (text or number or moment or pt.is_null(inner) or pt.is_string_view(inner)):
            expected = "numbers, texts, dates or timestamps" if name == "timestamp" else "texts or numbers"
            raise DataFileError(f"{path}: column {column!r} (for {name}) holds {kind}, expected {expected}")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, where they stand in a dictionary (categorical columns)."""
    return kind.value_type if pt.is_dictionary(kind) else kind


def _decoded(column: pa.Array) -> pa.Array:
    """A column without dictionaries, lists of a fixed size and bytes that are texts."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_fixed_size_list(column.type) or (_is_list(column.type) and pt.is_dictionary(column.type.value_type)):
        column = column.cast(pa.large_list(_plain(column.type.value_type)))
    if pt.is_binary(column.type) or pt.is_large_binary(column.type):
        column = column.cast(pa.large_string())
    return column


def parquet_frames(path: Path, columns: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """The wanted columns as frames with `line`, the number of the row from 1.

    Args:
        columns: name in the frame -> name in the file.
    Raises:
        DataFileError: the file is damaged, or a column is missing or of a wrong type.
    """
    check_types(path, columns, parquet_schema(path))
    line = 1
    for batch in _batches(path, list(dict.fromkeys(columns.values()))):
        frame = pl.DataFrame({name: pl.from_arrow(_decoded(batch.column(column))) for name, column in columns.items()})
        yield frame.with_row_index("line", offset=line).with_columns(pl.col("line").cast(pl.Int64))
        line += frame.height


def _batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    constants = folder_values(path)
    with _named(path):
        file = pq.ParquetFile(path)
        own = [name for name in names if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=own):
            for name in names:
                if name not in own:
                    batch = batch.append_column(name, pa.repeat(constants[name], batch.num_rows))
            yield batch


def parquet_records(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file by name."""
    for batch in _batches(path, names):
        yield from batch.to_pylist()
