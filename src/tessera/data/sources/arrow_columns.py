"""Columns of Parquet files in types that every reader knows; bytes that are no text are told apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt


class Decoded(NamedTuple):
    """A column without dictionaries, lists of a fixed size and bytes that are texts."""

    column: pa.Array
    broken: list[int]
    """Rows whose bytes are no text: U+FFFD stands in their place."""


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists."""
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values, where they stand in a dictionary (categorical columns)."""
    return kind.value_type if pt.is_dictionary(kind) else kind


def decoded(column: pa.Array) -> Decoded:
    """A column, or the lists in it, in plain types."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    listed = is_list(column.type)
    if listed and (pt.is_fixed_size_list(column.type) or pt.is_dictionary(column.type.value_type)):
        column = column.cast(pa.large_list(plain(column.type.value_type)))
    inner = column.type.value_type if listed else column.type
    if pt.is_decimal256(inner):  # polars has no such numbers
        column = column.cast(_of_all(pa.large_string(), listed))
        # whole ones with the `.0` that other decimals have among ids
        return Decoded(column if listed else pc.replace_substring_regex(column, r"\.0+$", ".0"), [])
    return _text(column, listed) if _is_text(inner) else Decoded(column, [])


def as_written(column: pa.Array) -> pa.Array:
    """Numbers in single precision as the doubles that are written alike: 0.1, and not 0.10000000149011612."""
    inner, texts, doubles = column.type, pa.string(), pa.float64()
    if is_list(inner):
        inner, texts, doubles = inner.value_type, pa.large_list(texts), pa.large_list(doubles)
    return column.cast(texts).cast(doubles) if pt.is_float32(inner) else column


def without_zone(column: pa.Array) -> pa.Array:
    """Times as they are counted, from 1970 in UTC: the zone says how they are shown, and some are not known."""
    return column.cast(pa.timestamp(column.type.unit)) if pt.is_timestamp(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    kinds = (
        pt.is_string, pt.is_large_string, pt.is_string_view,  # what is called a text was not looked at, either
        pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary,
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in kinds)


def _of_all(kind: pa.DataType, listed: bool) -> pa.DataType:
    return pa.large_list(kind) if listed else kind


def _text(column: pa.Array, listed: bool) -> Decoded:
    text = _of_all(pa.large_string(), listed)
    column = column.cast(_of_all(pa.large_binary(), listed))
    try:
        return Decoded(column.cast(text), [])
    except pa.ArrowInvalid:
        values = column.to_pylist()
    broken = [row for row, value in enumerate(values) if not _is_utf8(value)]
    return Decoded(pa.array(map(_lenient, values), text), broken)


def _is_utf8(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_utf8, value))
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _lenient(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_lenient, value))
    return None if value is None else value.decode("utf-8", "replace")
