"""Times as sources write them: the form of a column is found once, from many rows, and then holds for all of them.

Nothing is guessed row by row: a value in another form than its column is a row that cannot be read, never a time in
1970. What is read are whole numbers in the coarsest unit that loses nothing (`Clock`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tessera.data.clock import UNITS, Clock

ACCEPTED = (
    "unix seconds, milli-, micro- or nanoseconds (1973 to 2199); 2020-09-13 12:26:40.123, also with T, Z, UTC, +02:00; "
    "20200913 or 20200913122640; 13.09.2020 12:26; 09/13/2020 or 13/09/2020 where some day is above 12; "
    "Sun, 13 Sep 2020 12:26:40 GMT; Excel days (44087.5); a year, or year and month; 1, 2, 3, ... for an order alone; "
    "one form a column"
)
SAMPLE_ROWS = 1 << 16
"""Rows that decide on the form of a column."""

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BILLION = 10**9
_DAY = 86_400
_LAST = (2**63 - 1) // _BILLION  # seconds that nanoseconds in 64 bits can count, to either side
# Unix times are told apart by their size, so their range is bounded: 1973-03-03 to 2200-01-01
_UNIX_FIRST, _UNIX_END = 10**8, 7_258_118_400
_EXCEL_EPOCH = 25_569  # the serial of 1970-01-01
_EXCEL_FIRST, _EXCEL_LAST = 29_221, 54_789  # 1980 to 2049
_YEARS = (1900, 2100)
_COMPACT_FIRST = 1_900_000_000  # smaller unix seconds are no dates in one number
_MOST, _HALF = 0.95, 0.5  # shares of a sample


class _Numbers(NamedTuple):
    """Numbers from 0: whole part and billionths; what is none is not `valid`."""

    whole: Longs
    rest: Longs
    valid: Mask


class _Moments(NamedTuple):
    """Seconds since 1970 and nanoseconds after them."""

    seconds: Longs
    nanos: Longs
    valid: Mask


# ---------------------------------------------------------------- numbers


def _float_numbers(values: npt.NDArray[np.float64]) -> _Numbers:
    with np.errstate(invalid="ignore"):
        valid = (values >= 0) & (values < 2**63)
    values = np.where(valid, values, 0.0)
    whole = np.floor(values)
    if np.array_equal(whole, values):
        return _Numbers(whole.astype(np.int64), np.zeros(len(whole), np.int64), np.asarray(valid, np.bool_))
    # what a double holds: billionths of small numbers, millionths of unix seconds
    fine = np.where(values < 1e6, 1e9, 1e6)
    rest = np.rint((values - whole) * fine) * (_BILLION / fine)
    carried = rest >= _BILLION
    return _Numbers(
        whole.astype(np.int64) + carried, np.where(carried, 0, rest).astype(np.int64), np.asarray(valid, np.bool_)
    )


def _plain(column: pl.Series) -> pl.Series:
    return column.cast(pl.String, strict=False).str.strip_chars()


def _numbers(column: pl.Series) -> _Numbers:
    """Numbers of a column of numbers, or of texts that are numbers; text is exact to the billionth."""
    if column.dtype.is_float():
        return _float_numbers(column.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    if not column.dtype.is_integer():
        column = _plain(column)
    integers = column.cast(pl.Int64, strict=False)
    whole = integers.fill_null(-1).to_numpy().copy()
    rest = np.zeros(len(whole), np.int64)
    others = (integers.is_null() & column.is_not_null()).to_numpy()
    if column.dtype == pl.String and others.any():
        texts = column.filter(others).str.replace(r"^(\+?\d{4,}),(\d+)$", "${1}.${2}")
        parts = texts.to_frame("t").select(
            whole=pl.col("t").str.extract(r"^\+?(\d{1,18})\.\d*$").cast(pl.Int64, strict=False),
            rest=pl.col("t").str.extract(r"\.(\d*)$").str.pad_end(9, "0").str.head(9).cast(pl.Int64, strict=False),
            scientific=pl.when(pl.col("t").str.contains(r"^\+?\d+(\.\d*)?[eE]\+?\d+$"))
            .then(pl.col("t"))
            .cast(pl.Float64, strict=False),
        )
        floats = _float_numbers(parts["scientific"].fill_null(float("nan")).to_numpy())
        exact = parts["whole"].is_not_null().to_numpy()
        whole[others] = np.where(exact, parts["whole"].fill_null(0), np.where(floats.valid, floats.whole, -1))
        rest[others] = np.where(exact, parts["rest"].fill_null(0), floats.rest)
    return _Numbers(whole, rest, whole >= 0)


def _unix(numbers: _Numbers) -> _Moments:
    """Unix times of any unit, told by their size."""
    whole, rest, valid = numbers
    if len(whole) and whole.min() >= _UNIX_FIRST and whole.max() < _UNIX_END:
        return _Moments(whole, rest, valid)
    scale = np.zeros(len(whole), np.int64)
    for ticks in UNITS.values():
        scale[(whole >= _UNIX_FIRST * ticks) & (whole < _UNIX_END * ticks)] = ticks
    valid = valid & (scale > 0)
    scale[~valid] = 1
    whole = np.where(valid, whole, 0)
    return _Moments(whole // scale, whole % scale * (_BILLION // scale) + rest // scale, valid)


def _steps(numbers: _Numbers) -> _Moments:
    """Numbers too small to be unix times, taken as they are: they say the order."""
    return _Moments(numbers.whole, numbers.rest, numbers.valid & (numbers.whole < _UNIX_FIRST))


def _excel(numbers: _Numbers) -> _Moments:
    """Days since 1899-12-30, to the millisecond."""
    milli = (numbers.rest * _DAY + 500_000) // 10**6
    seconds = (numbers.whole - _EXCEL_EPOCH) * _DAY + milli // 1000
    inside = (numbers.whole >= _EXCEL_FIRST) & (numbers.whole <= _EXCEL_LAST)
    return _Moments(seconds, milli % 1000 * 10**6, numbers.valid & inside)


def _compact(digits: int) -> Callable[[_Numbers], _Moments]:
    """Dates written as one number: 2020, 202009, 20200913, then hour, minute, second, millisecond."""
    sizes = [size for size, end in ((4, 4), (2, 6), (2, 8), (2, 10), (2, 12), (2, 14), (3, 17)) if end <= digits]

    def read(numbers: _Numbers) -> _Moments:
        left = np.where(numbers.valid, numbers.whole, 0)
        parts: list[Longs] = []
        for size in reversed(sizes):
            parts.insert(0, left % 10**size)
            left = left // 10**size
        parts += [np.full(len(left), absent, np.int64) for absent in (1, 1, 1, 0, 0, 0, 0)[len(parts) :]]
        year, month, day, hour, minute, second, milli = parts
        made = _calendar(year, month, day, hour, minute, second)
        known = (year >= _YEARS[0]) & (year <= _YEARS[1]) & (left == 0) & numbers.valid
        if digits < 14:
            known &= numbers.rest == 0
        return _Moments(made.seconds, milli * 10**6 + numbers.rest, made.valid & known)

    return read


def _calendar(year: Longs, month: Longs, day: Longs, hour: Longs, minute: Longs, second: Longs) -> _Moments:
    """Moments of calendar fields (UTC); those that no calendar has are not valid."""
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 60)
    valid &= (year >= 1678) & (year <= 2261)
    months = np.where(valid, (year - 1970) * 12 + month - 1, 0)
    first = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    valid &= day <= (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64) - first
    return _Moments(((first + day - 1) * 24 + hour) * 3600 + minute * 60 + second, np.zeros_like(first), valid)


# ---------------------------------------------------------------- texts

_CLOCK = (
    r"(?:(?:[Tt]|,? +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d+))?)?"
    r"(?: *(?P<half>[AaPp])\.?[Mm]\.?)?)?"
)
_ZONE = r"(?: *(?:[Zz]|UTC?|GMT|(?P<zone>[+-]\d{2}(?::?\d{2})?)))?(?: *\((?:UTC|GMT)\))?"
_AFTER = _CLOCK + _ZONE + "$"
_WEEKDAY = r"^(?:[A-Za-z]{3,9}\.?,? +)?"
_NAME = r"(?P<name>[A-Za-z]{3,9})\.?"
_PATTERNS = {
    "ISO date": r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _AFTER,
    "ISO date without separators": r"^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"
    r"[Tt ](?P<hour>\d{2}):?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<part>\d+))?)?" + _ZONE + "$",
    "year and month": r"^(?P<year>\d{4})[-/](?P<month>\d{1,2})$",
    "day.month.year": r"^(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})" + _AFTER,
    "month/day/year": r"^(?P<month>\d{1,2})[-/](?P<day>\d{1,2})[-/](?P<year>\d{4})" + _AFTER,
    "day/month/year": r"^(?P<day>\d{1,2})[-/](?P<month>\d{1,2})[-/](?P<year>\d{4})" + _AFTER,
    "day month year": _WEEKDAY + r"(?P<day>\d{1,2})[ -]" + _NAME + r"[ -](?P<year>\d{4})" + _AFTER,
    "month day, year": _WEEKDAY + _NAME + r" (?P<day>\d{1,2}),? (?P<year>\d{4})" + _AFTER,
    "month day, year in numbers": r"^(?P<month>\d{1,2}) (?P<day>\d{1,2}), (?P<year>\d{4})" + _AFTER,
    "day of a clock": _WEEKDAY + _NAME + r" +(?P<day>\d{1,2})" + _CLOCK + _ZONE + r" +(?P<year>\d{4})$",
}
_SLASHED = ("month/day/year", "day/month/year")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _text_moments(column: pl.Series, pattern: str) -> _Moments:
    """Moments of texts (UTC unless they say an offset)."""
    fields = column.str.extract_groups(pattern).struct.unnest()
    matched = fields["year"].is_not_null().to_numpy()

    def number(name: str, absent: int = 0) -> Longs:
        if name not in fields.columns:
            return np.full(len(column), absent, np.int64)
        values: Longs = fields[name].cast(pl.Int64, strict=False).fill_null(absent).to_numpy()
        return values

    month = number("month", 1)
    if "name" in fields.columns:
        short = fields["name"].str.to_lowercase().str.head(3)
        month = short.replace_strict(_MONTHS, range(1, 13), default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()
    hour = number("hour")
    valid = matched
    if "half" in fields.columns and fields["half"].is_not_null().any():
        half = fields["half"].str.to_lowercase().fill_null("").to_numpy()
        halved = half != ""
        valid = valid & (~halved | ((hour >= 1) & (hour <= 12)))
        hour = np.where(halved, hour % 12 + 12 * (half == "p"), hour)
    made = _calendar(number("year"), month, number("day", 1), hour, number("minute"), number("second"))
    seconds, nanos = made.seconds, made.nanos
    if "part" in fields.columns and fields["part"].is_not_null().any():
        nanos = fields["part"].str.pad_end(9, "0").str.head(9).cast(pl.Int64).fill_null(0).to_numpy()
    if "zone" in fields.columns and fields["zone"].is_not_null().any():
        digits = fields["zone"].str.replace_all(r"\D", "").str.pad_end(4, "0").cast(pl.Int64).fill_null(0).to_numpy()
        ahead = np.where(fields["zone"].str.starts_with("-").fill_null(False).to_numpy(), -1, 1)
        seconds = seconds - ahead * (digits // 100 * 3600 + digits % 100 * 60)
        valid = valid & (digits <= 1500) & (digits % 100 < 60)
    return _Moments(seconds, nanos, valid & made.valid)


def _typed_moments(column: pl.Series) -> _Moments:
    """Moments of a column of dates or of dates with times."""
    valid = column.is_not_null().to_numpy()
    if column.dtype == pl.Date:
        days = column.to_physical().cast(pl.Int64).fill_null(0).to_numpy()
        return _bounded(days * _DAY, np.zeros_like(days), valid)
    assert isinstance(column.dtype, pl.Datetime)
    ticks = UNITS[column.dtype.time_unit]
    values = column.to_physical().fill_null(0).to_numpy()
    return _bounded(values // ticks, values % ticks * (_BILLION // ticks), valid)


def _bounded(seconds: Longs, nanos: Longs, valid: Mask) -> _Moments:
    return _Moments(seconds, nanos, valid & (np.abs(seconds) < _LAST))


# ---------------------------------------------------------------- the form of a column

_ORDER = "number of order"
_NUMBER_FORMS: dict[str, Callable[[_Numbers], _Moments]] = {
    "unix time": _unix,
    _ORDER: _steps,
    "Excel day": _excel,
    "year": _compact(4),
    "year and month in one number": _compact(6),
    "date in one number": _compact(8),
    "date and hour in one number": _compact(10),
    "date and minute in one number": _compact(12),
    "date and second in one number": _compact(14),
    "date and millisecond in one number": _compact(17),
}


class TimeColumn:
    """Reads a column of times, frame by frame, by the form of its first rows."""

    def __init__(self, sample: Sequence[pl.Series]) -> None:
        """Find the form.

        Args:
            sample: the column in the first frames of the log.
        """
        self._dates = False
        """Whether a column of dates was there: they need no form, and stand beside texts and numbers that have one."""
        self._form: str | None = None
        self._why: str | None = None
        self._learn(sample)
        self.unit = "s"
        """The coarsest unit that holds everything read so far."""

    @property
    def clock(self) -> Clock:
        """What the numbers read so far count, if all of them are told in its unit."""
        return Clock(self.unit, self._form != _ORDER)

    def read(self, column: pl.Series) -> pl.Series:
        """The times of a frame, Int64 in `unit`, which becomes finer where they need it; null where there is none."""
        self._learn([column])
        seconds, nanos, valid = self._moments(column)
        used = nanos[valid] if nanos.any() else nanos[:0]
        self.unit = next(
            unit for unit, ticks in UNITS.items()
            if ticks >= UNITS[self.unit] and (ticks == _BILLION or not (used % (_BILLION // ticks)).any())
        )  # fmt: skip
        values, ticks = np.where(valid, seconds, 0), UNITS[self.unit]
        if ticks > 1:
            values = values * ticks + np.where(valid, nanos, 0) // (_BILLION // ticks)
        series = pl.Series(values)
        return series if valid.all() else pl.select(pl.when(pl.Series(valid)).then(series)).to_series()

    def _learn(self, columns: Sequence[pl.Series]) -> None:
        """Find the form of numbers or texts, once there are any."""
        self._dates = self._dates or any(map(_is_typed, columns))
        if self._form is None and self._why is None:
            self._form, self._why = _form(_joined([column for column in columns if not _is_typed(column)]))
            if self._dates and self._form == _ORDER:
                self._form, self._why = None, "is no time like the others (date)"

    def _moments(self, column: pl.Series) -> _Moments:
        none = np.zeros(len(column), np.int64)
        nothing = _Moments(none, none, none.astype(bool))
        if _is_typed(column):
            return _typed_moments(column) if self._form != _ORDER else nothing
        if self._form is None or not _readable(column):
            return nothing
        if self._form in _NUMBER_FORMS:
            return _NUMBER_FORMS[self._form](_numbers(column))
        return _text_moments(_plain(column), _PATTERNS[self._form])

    def reason(self, value: Any) -> str:
        """Why a value is no time of this column."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return "timestamp is missing"
        if self._why is not None:
            return f"timestamp {value} {self._why}"
        like = f" like the others ({self._form})" if self._form and any(map(str.isdigit, str(value))) else ""
        return f"timestamp {value} is no time{like}"


def _is_typed(column: pl.Series) -> bool:
    """Whether a column holds dates, rather than numbers or texts that say one."""
    return column.dtype == pl.Date or column.dtype == pl.Datetime


def _readable(column: pl.Series) -> bool:
    """Whether a type may hold times as numbers or texts."""
    dtype = column.dtype
    return dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary)


def _joined(sample: Sequence[pl.Series]) -> pl.Series:
    """One column of the sample; of numbers and texts, texts. Columns without a type hold nothing."""
    sample = [column for column in sample if column.dtype != pl.Null]
    if len({column.dtype for column in sample}) > 1 and all(map(_readable, sample)):
        sample = [column.cast(pl.String) for column in sample]
    return pl.concat([column.alias("timestamp") for column in sample]) if sample else pl.Series([], dtype=pl.String)


def _form(column: pl.Series) -> tuple[str | None, str | None]:
    """The name of a column's form, or why it has none; neither where it is empty."""
    column = column.drop_nulls()
    if not len(column):
        return None, None
    if not _readable(column):
        return None, f"is no time (the column holds {column.dtype})"
    if column.dtype.is_numeric():
        return _number_form(_numbers(column.head(SAMPLE_ROWS)))
    first = _plain(column.head(SAMPLE_ROWS))
    numbers = _numbers(first)
    counts = {name: int(first.str.contains(pattern).sum()) for name, pattern in _PATTERNS.items()}
    best = max(counts, key=lambda name: counts[name])
    if numbers.valid.sum() >= counts[best]:
        return _number_form(numbers) if numbers.valid.any() else (None, None)
    return _slashed(_plain(column)) if best in _SLASHED else (best, None)


def _slashed(column: pl.Series) -> tuple[str | None, str | None]:
    """Which of the first two numbers is the month."""
    american, other = (_text_moments(column, _PATTERNS[name]).valid.sum() for name in _SLASHED)
    if american == other:
        return None, "may be month/day or day/month, and the other rows do not tell: write 2020-09-13"
    return _SLASHED[int(other > american)], None


def _number_form(numbers: _Numbers) -> tuple[str | None, str | None]:
    """What the numbers of a column mean, from all of them: unix times, dates in one number, Excel days, an order."""
    nonzero = numbers.valid & (numbers.whole + numbers.rest > 0)
    if not nonzero.any():
        zeros = numbers.valid.any()
        return None, "is no time (all are 0): leave `timestamp` out where the rows are in order" if zeros else None
    numbers = _Numbers(numbers.whole[nonzero], numbers.rest[nonzero], nonzero[nonzero])
    if numbers.whole.min() >= _UNIX_FIRST and numbers.whole.max() < _COMPACT_FIRST:
        return "unix time", None

    def share(name: str) -> float:
        return float(_NUMBER_FORMS[name](numbers).valid.mean())

    for name in _NUMBER_FORMS:
        # ten and twelve digits may be unix times, if of 1976 or of 2030 and later
        if name.startswith("date") and share(name) >= (_MOST if "hour" in name or "minute" in name else _HALF):
            return name, None
    if share("unix time") >= _HALF:
        return "unix time", None
    for name in ("year", "year and month in one number", "Excel day"):
        if share(name) >= _MOST:
            return name, None
    return ("number of order", None) if share("number of order") >= _HALF else (None, None)
