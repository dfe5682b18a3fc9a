"""One rule for the ids of users and items, whatever file they stand in.

An id is a text and stays as it is (`007`, `1.50`, `1e5`). A number is written as its value. A column whose every id is
a whole number loses the `.0` that some programs write behind whole numbers, unless two ids would become one. Where an
id is missing (null, NaN, empty), there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl


MISSING = ("NaN", "nan", "null", "NULL", "None", "<NA>", "\\N")
"""What programs write where there is no id."""
_WHOLE = r"^(?:0|-?[1-9]\d*)(?:\.0)?$"
_WHOLE_FOUND = re.compile(_WHOLE)
_POINT_OF_WHOLE = re.compile(r"\.0+$")
_NO_IDS = (bool, list, tuple, set, dict)
EXACT = 2**53
"""Doubles beyond do not hold every whole number."""


def may_be_id(value: Any) -> bool:
    """Whether a value of a Python or JSON object is an id or a missing one: no object, list or boolean."""
    return value is None or not isinstance(value, _NO_IDS)


def id_text(value: Any) -> str | None:
    """The id that a value of a Python or JSON object is; None where it is missing, or no id."""
    if value is None or not may_be_id(value):
        return None
    if isinstance(value, float):
        # every digit, without an exponent: as ids of JSON are read in blocks
        return np.format_float_positional(value, trim="-") if np.isfinite(value) else None
    if isinstance(value, Decimal):
        return _POINT_OF_WHOLE.sub("", format(value, "f")) if value.is_finite() else None
    text = str(value).strip()
    return text if text and text not in MISSING else None


def id_texts(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The ids of a column of any type, null where they are missing. Whole numbers among floats keep a `.0`."""
    # here, for every training and judging reads this file, and few need it
    import polars as pl

    if dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2.0**63)
        number = column.cast(pl.Int64, strict=False).cast(pl.String) + ".0"
        return pl.when(whole).then(number).when(column.is_finite()).then(column.cast(pl.String))
    text = column.cast(pl.String).str.strip_chars()
    if dtype.is_decimal():
        text = text.str.replace(r"\.0+$", ".0")
    if dtype.is_numeric():
        return text
    return pl.when((text != "") & ~text.is_in(MISSING)).then(text)


def id_series(column: pl.Series) -> pl.Series:
    """`id_texts` of a column that is at hand as a whole, by the rule of whole columns."""
    import polars as pl

    ids = column.alias("id").to_frame().select(id_texts(pl.col("id"), column.dtype)).to_series()
    return ids.str.strip_suffix(".0") if whole_numbers(ids.drop_nulls().unique()) else ids


def without_points(ids: pl.Expr) -> pl.Expr:
    """Ids whose whole numbers lose a `.0` one by one: for those within another id, which are no column."""
    import polars as pl

    return pl.when(ids.str.contains(_WHOLE)).then(ids.str.strip_suffix(".0")).otherwise(ids)


def whole_numbers(ids: pl.Series) -> bool | None:
    """Whether the ids of a column lose a `.0`: all are whole numbers, some with it.

    Args:
        ids: the different ids of the whole column.
    Returns:
        None where they would, but two would become one.
    """
    pointed = ids.str.ends_with(".0")
    if not pointed.any() or not ids.str.contains(_WHOLE).all():
        return False
    return True if ids.str.strip_suffix(".0").n_unique() == len(ids) else None


def twin(raw_id: str) -> str | None:
    """The other way to write a whole number, `1.0` for `1` and `1` for `1.0`; None for other ids."""
    if not _WHOLE_FOUND.fullmatch(raw_id):
        return None
    return raw_id.removesuffix(".0") if raw_id.endswith(".0") else f"{raw_id}.0"


def positions_in(ids: Iterable[str | None], known: Iterable[str] | Mapping[str, int]) -> list[int]:
    """Where each id of a file or list stands among the known ones, or -1.

    A whole number written in the other way counts where the file does not hold the known id itself.

    Args:
        ids: the ids, None where one is missing.
        known: the known ones in their order, or the position of each.
    """
    place = known if isinstance(known, Mapping) else {raw_id: number for number, raw_id in enumerate(known)}
    listed = list(ids)
    exact = {raw_id for raw_id in listed if raw_id in place}
    positions = []
    for raw_id in listed:
        other = twin(raw_id) if raw_id is not None and raw_id not in place else raw_id
        usable = other is not None and (other == raw_id or other not in exact)
        positions.append(place.get(other, -1) if usable and other is not None else -1)
    return positions
