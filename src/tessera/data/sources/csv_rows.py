"""Tables of text with a header and quoted fields (CSV), in which a stray quote costs one row, not the rest of the file.

A block is parsed as a whole; where its records are not its lines one by one, it is read again with care. A quoted field
may hold line breaks, but where most of the lines that it would take in look like rows themselves, its quote was a stray
one: its line is rejected, and reading goes on with the next. The line that closes a field may look like a row by chance
(`Cheap, too",5`): it counts where the first line of the field looks like one, or where it makes no record there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc_csv

from tessera.data.blocks import BLOCK_BYTES, Block, as_block, blocks
from tessera.data.files import DataFileError
from tessera.data.log import RawLog
from tessera.settings.base import did_you_mean

SEPARATORS = "\t,;|"
UNCLOSED = "a quote is not closed on its line"
_JUDGED_LINES = 50  # of a quoted field, before it is settled whether they are rows
_PROFILED_BYTES = 1 << 16
_PROFILED_LINES = 400
_FEW_SHAPES = 4
_QUOTE = 34
_SAID_SEPARATOR = re.compile('"?sep=(.)"?', re.IGNORECASE)
"""A line that spreadsheets write before the header."""
_FIRST_QUOTE = re.compile('(?:[^"]|"")*"(?!")')
_HALVES = re.compile("[\ud800-\udfff]+")
csv.field_size_limit(2**31 - 1)


class Header(NamedTuple):
    """What the first line of a table says."""

    names: list[str]
    """Of the columns; unnamed ones at the end are left out."""
    separator: str
    line: int
    """Number of the line, from 1; 0 where the names were given from outside."""


def whole(text: str) -> str:
    """A text with the halves of characters (lone surrogates, undecodable bytes) replaced, so that it can be written."""
    if is_whole(text):
        return text
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return _HALVES.sub("\ufffd", joined)


def is_whole(text: str) -> bool:
    """Whether a text holds no halves of characters."""
    return text.isascii() or _HALVES.search(text) is None


def read_header(path: Path, separator: str | None = None, encoding: str | None = None) -> Header:
    """The column names on the first line that is not blank; the separator is the most frequent one there, or what a
    line `sep=;` before it says."""
    said: str | None = None
    for block in blocks(path, 1 << 20, encoding):
        for number, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            line = raw.decode("utf-8", "surrogateescape").rstrip("\r")
            if said is None and (before := _SAID_SEPARATOR.fullmatch(line)) is not None:
                said = before[1]
            elif line.strip():
                chosen = separator or said or max(SEPARATORS, key=line.count)
                names = [name.strip() for name in parse(line, chosen)]
                while names and not names[-1]:
                    names.pop()
                return Header(names, chosen, number)
        break
    raise DataFileError(f"{path}: is empty")


def check_columns(path: Path, columns: dict[str, str], header: Sequence[str]) -> None:
    """Refuse a table without one of the columns, or with it twice.

    Raises:
        DataFileError: so it is.
    """
    for name, column in columns.items():
        if column not in header:
            raise DataFileError(f"{path}: has no column {column!r} (for {name}){did_you_mean(column, header)}")
        if list(header).count(column) > 1:
            raise DataFileError(f"{path}: has the column {column!r} (for {name}) {list(header).count(column)} times")


def parse(line: str, separator: str) -> list[str]:
    """The fields of one line; a last field whose quote is not closed ends with a newline.

    Raises:
        csv.Error: a carriage return stands in the middle.
    """
    if '"' not in line:
        return line.split(separator)
    return next(csv.reader([line + "\n"], delimiter=separator), [])


def is_open(fields: list[str]) -> bool:
    """Whether the quote of the last field is still to be closed."""
    return bool(fields) and fields[-1].endswith("\n")


def fits(header: Header, fields: list[str]) -> bool:
    """Whether a record has the right number of fields; empty ones beyond (a separator at the end) do no harm."""
    width = len(header.names)
    return len(fields) >= width and not any(field.strip() for field in fields[width:])


class _Profile:
    """What rows look like: the number of fields; which are numbers, which never hold blanks, how they are built."""

    def __init__(self, header: Header, lines: list[str]) -> None:
        self._header = header
        rows = _single_rows(header, lines) or _rows_line_by_line(header, lines)
        self._known = bool(rows)
        columns = list(zip(*(row[: len(header.names)] for row in rows), strict=True))
        self._numeric = [any(column) and all(map(is_number, filter(None, column))) for column in columns]
        self._spaced = [any(" " in field.strip() for field in column) for column in columns]
        shapes = [{_shape(field) for field in column} for column in columns]
        self._shapes = [seen if len(seen) <= _FEW_SHAPES and len(rows) >= 20 else None for seen in shapes]

    def is_row(self, line: str) -> bool:
        """Whether a line looks like a row of this table."""
        if not self._known or line.count(self._header.separator) < len(self._header.names) - 1:
            return False
        fields = _parse(line, self._header)
        if fields is None or not fits(self._header, fields):
            return False
        return all(map(self._is_value, range(len(self._numeric)), fields))

    def _is_value(self, column: int, field: str) -> bool:
        if not field:
            return True
        if self._numeric[column]:
            return is_number(field)
        shapes = self._shapes[column]
        # the stray quote itself, and what was typed around it, may stand in the field
        known = shapes is None or self._spaced[column] or _shape(field.replace('"', "")) in shapes
        return known and (self._spaced[column] or " " not in field.strip())


def _shape(field: str) -> str:
    """How a value is built: `B00X4` is `A9A9`."""
    return re.sub(
        "9+", "9", re.sub("a+", "a", "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in field))
    )


def _parse(line: str, header: Header) -> list[str] | None:
    try:
        return parse(line, header.separator)
    except csv.Error:
        return None


def _single_rows(header: Header, lines: list[str]) -> list[list[str]]:
    """Rows of one line, where quoted fields may hold line breaks."""
    rows: list[list[str]] = []
    inside = False
    for line in lines:
        fields = _parse('"' + line if inside else line, header) or []
        if not inside and not is_open(fields) and fits(header, fields):
            rows.append(fields)
        inside = is_open(fields)
    return rows


def _rows_line_by_line(header: Header, lines: list[str]) -> list[list[str]]:
    """Rows of one line, where most of the lines are such: otherwise all rows hold texts of several lines."""
    parsed = [fields for line in lines if line.strip() and (fields := _parse(line, header)) is not None]
    rows = [fields for fields in parsed if fits(header, fields) and not is_open(fields)]
    return rows if len(rows) >= 0.8 * len(parsed) else []


def is_number(text: str) -> bool:
    """Whether a text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


class CarefulReader:
    """Records of a table line by line."""

    def __init__(self, path: Path, header: Header, log: RawLog, encoding: str | None) -> None:
        self.path, self.header, self.log, self._encoding = path, header, log, encoding

    @cached_property
    def _profile(self) -> _Profile:
        body, _ = next(_bodies(self.path, self.header, _PROFILED_BYTES, self._encoding))
        return _Profile(self.header, _texts(body)[:_PROFILED_LINES])

    def is_row(self, line: str) -> bool:
        """Whether a line looks like a row of this table."""
        return self._profile.is_row(line)

    def records(self, block: Block, last: bool) -> tuple[list[tuple[int, list[str]]], Block | None]:
        """The records of a block with their line numbers; and its end, where a quoted field needs the lines after it.

        Args:
            last: no lines come after the block: a quote that is open then is a stray one.
        """
        lines = _texts(block)
        width, separator = len(self.header.names), self.header.separator
        records: list[tuple[int, list[str]]] = []
        place = 0
        while place < len(lines):
            number, line = block.first + place, lines[place]
            place += 1
            if not line.strip():
                continue
            try:
                fields = parse(line, separator)
                if is_open(fields):
                    end = self._end(lines, place)
                    if end is None and not last and len(block.data) < 4 * BLOCK_BYTES:
                        return records, _rest(block, place - 1)
                    if not end:
                        self.log.reject(self.path, number, UNCLOSED, line)
                        continue
                    line = "\n".join(lines[place - 1 : end])
                    fields, place = parse(line, separator), end
            except csv.Error as error:
                self.log.reject(self.path, number, f"no row: {error}", line)
                continue
            if not fits(self.header, fields):
                reason = f"{len(fields)} fields, expected {width}"
                self.log.reject(self.path, number, reason, line)
                continue
            records.append((number, fields[:width]))
        return records, None

    def _end(self, lines: list[str], start: int) -> int | None:
        """Place behind the record whose quoted field is open before line `start`; 0 if the quote is a stray one.

        None where the lines do not tell.
        """
        seen = alike = 0
        for place in range(start, len(lines)):
            line = lines[place]
            within = alike > 0 and 2 * alike >= seen  # of the lines before this one
            if line.strip():
                seen += 1
                alike += self.is_row(line)
            stray = alike > 0 and 2 * alike >= seen
            if '"' in line and not is_open(parse('"' + line, self.header.separator)):
                by_chance = stray and not within and not self.is_row(lines[start - 1])
                if by_chance and self._makes_a_record(lines[start - 1 : place + 1]):
                    return place + 1
                return 0 if stray else place + 1
            if seen == _JUDGED_LINES and stray:
                return 0
        return None

    def _makes_a_record(self, lines: list[str]) -> bool:
        """Whether a quoted field that the last line closes ends there at a separator, and the lines make one record."""
        closing = _FIRST_QUOTE.match(lines[-1])
        if closing is None or lines[-1][closing.end() :][:1] not in ("", self.header.separator):
            return False
        return fits(self.header, parse("\n".join(lines), self.header.separator))


def _texts(block: Block) -> list[str]:
    lines = block.data.split(b"\n")[:-1]
    return [raw.decode("utf-8", "surrogateescape").removesuffix("\r") for raw in lines]


def _rest(block: Block, place: int) -> Block:
    start = int(block.ends[place - 1]) + 1 if place else 0
    return as_block(block.first + place, block.data[start:])


def _bodies(path: Path, header: Header, size: int, encoding: str | None) -> Iterator[tuple[Block, bool]]:
    """The blocks behind the header, and whether each is the last."""
    waiting: Block | None = None
    for block in blocks(path, size, encoding):
        if header.line and block.first == 1:
            if block.lines == header.line:
                continue
            block = _rest(block, header.line)
        if waiting is not None:
            yield waiting, False
        waiting = block
    if waiting is not None:
        yield waiting, True


def _joined(rest: Block | None, block: Block) -> Block:
    return block if rest is None else as_block(rest.first, rest.data + block.data)


def csv_frames(
    path: Path,
    columns: dict[str, str],
    header: Header,
    log: RawLog,
    encoding: str | None = None,
    size: int | None = None,
) -> Iterator[pl.DataFrame]:
    """The wanted columns of a table as frames of texts and `line`, the number of the line that a record begins on.

    Args:
        columns: name in the frame -> name in the file.
        size: of the blocks that are read, in bytes.
    Raises:
        DataFileError: a column is not there.
    """
    check_columns(path, columns, header.names)
    positions = {name: header.names.index(column) for name, column in columns.items()}
    careful = CarefulReader(path, header, log, encoding)
    rest: Block | None = None
    for body, last in _bodies(path, header, size or BLOCK_BYTES, encoding):
        block = _joined(rest, body)
        head, rest = (block, None) if last else _whole_records(block)
        frame = _plain(head, positions, careful)
        if frame is None:
            records, rest = careful.records(block, last)
            frame = _frame(path, records, positions, log)
        yield frame


def _plain(block: Block, positions: dict[str, int], careful: CarefulReader) -> pl.DataFrame | None:
    """A block in which every line is a row, save blank lines and lines with other numbers of fields; else None."""
    header = careful.header
    if not header.separator.isascii():  # the quick reader knows separators of one byte
        return None
    ends_open = block.data.rfind(b"\n", 0, -1) + 1
    try:
        final = parse(block.data[ends_open:-1].decode("utf-8", "replace"), header.separator)
        first = parse(block.data[: int(block.ends[0])].decode("utf-8", "replace").removesuffix("\r"), header.separator)
    except csv.Error:
        return None
    if is_open(final):
        return None
    width = len(first) if fits(header, first) else len(header.names)
    skipped: list[tuple[int, int, str]] = []

    def wrong(row: Any) -> str:
        skipped.append((row.number, row.actual_columns, row.text))
        return "skip"

    # rows are numbered on one thread only
    names = [str(place) for place in range(width)]
    read = pc_csv.ReadOptions(use_threads=False, block_size=len(block.data) + 1, column_names=names)
    options = pc_csv.ParseOptions(delimiter=header.separator, newlines_in_values=True, invalid_row_handler=wrong)
    wanted = [str(place) for place in dict.fromkeys(positions.values())]
    convert = pc_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=wanted,
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    try:
        table = pc_csv.read_csv(pa.BufferReader(block.data), read, options, convert)
        if any(text.strip() and fits(header, parse(text, header.separator)) for _, _, text in skipped):
            return None
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error):
        return None
    numbers = _line_numbers(block)
    if len(numbers) != table.num_rows + len(skipped):
        numbers = _record_numbers(block, careful)
        if len(numbers) != table.num_rows or skipped:
            return None
    for row, count, text in skipped:
        if text.strip():
            line = numbers[row - 1]
            careful.log.reject(careful.path, line, f"{count} fields, expected {len(header.names)}", text)
    gone = {row - 1 for row, _, _ in skipped}
    kept = [number for place, number in enumerate(numbers) if place not in gone] if gone else numbers
    frame = pl.DataFrame(pl.from_arrow(table))
    selected = frame.select(**{name: pl.col(str(place)) for name, place in positions.items()})
    return selected.insert_column(0, pl.Series("line", kept, pl.Int64))


def _line_numbers(block: Block) -> Sequence[int]:
    """Numbers of the lines that are not empty."""
    numbers = range(block.first, block.first + block.lines)
    if b"\n\n" not in block.data and b"\n\r\n" not in block.data and block.data[:1] not in b"\r\n":
        return numbers
    lines = block.data.split(b"\n")[:-1]
    return [number for number, line in zip(numbers, lines, strict=True) if line not in (b"", b"\r")]


def _quoted(block: Block) -> npt.NDArray[np.bool_]:
    """(lines + 1,) whether a quoted field is open where each line begins, and at the end, if every quote counts."""
    starts = np.append(0, block.ends[:-1] + 1)
    quotes = (np.frombuffer(block.data, np.uint8) == _QUOTE).view(np.uint8)
    odd = np.add.reduceat(quotes, starts, dtype=np.int64) % 2
    opened: npt.NDArray[np.bool_] = np.append(0, np.cumsum(odd)) % 2 == 1
    return opened


def _whole_records(block: Block) -> tuple[Block, Block | None]:
    """A block up to a quoted field that is open at its end, and the lines from there on."""
    if block.data.count(b'"') % 2 == 0:
        return block, None
    quoted = _quoted(block)
    last = int(np.flatnonzero(~quoted[:-1])[-1])
    if 2 * last < block.lines or not last:  # a stray quote, rather than a field that goes on in the next block
        return block, None
    return as_block(block.first, block.data[: int(block.ends[last - 1]) + 1]), _rest(block, last)


def _record_numbers(block: Block, careful: CarefulReader) -> list[int]:
    """Numbers of the lines that records begin on, where quoted fields hold line breaks; empty if one holds a row."""
    quoted = _quoted(block)
    starts = np.append(0, block.ends[:-1] + 1)
    marks = (np.frombuffer(block.data, np.uint8) == ord(careful.header.separator)).view(np.uint8)
    counts = np.add.reduceat(marks, starts, dtype=np.int64)
    for place in np.flatnonzero(quoted[:-1] & (counts >= len(careful.header.names) - 1)):
        line = block.data[int(starts[place]) : int(block.ends[place])].decode("utf-8", "surrogateescape")
        if careful.is_row(line.removesuffix("\r")):
            return []
    empty = np.isin(block.ends - starts, (0, 1))  # a line of one character is no row, either
    return [block.first + int(place) for place in np.flatnonzero(~quoted[:-1] & ~empty)]


def _frame(path: Path, records: list[tuple[int, list[str]]], positions: dict[str, int], log: RawLog) -> pl.DataFrame:
    kept: list[tuple[Any, ...]] = []
    for number, fields in records:
        values = [fields[place] or None for place in positions.values()]
        broken = next(
            (name for name, value in zip(positions, values, strict=True) if value and not is_whole(value)), None
        )
        if broken is not None:
            log.reject(path, number, f"{broken} is not utf-8 text", whole(" ".join(map(str, values))))
            continue
        kept.append((number, *values))
    schema = {"line": pl.Int64, **dict.fromkeys(positions, pl.String)}
    return pl.DataFrame(kept, schema, orient="row")


def csv_records(
    path: Path, wanted: dict[str, str], ids: Sequence[str], header: Header, log: RawLog, encoding: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields by name of every record; rows with other numbers of fields are rejected.

    Args:
        wanted: what for -> column; they must be there.
        ids: columns in which bytes that are no text make a row a rejected one; elsewhere they are replaced.
    Raises:
        DataFileError: a column is not there.
    """
    check_columns(path, wanted, header.names)
    careful = CarefulReader(path, header, log, encoding)
    rest: Block | None = None
    for body, last in _bodies(path, header, BLOCK_BYTES, encoding):
        records, rest = careful.records(_joined(rest, body), last)
        for number, fields in records:
            row = dict(zip(header.names, fields, strict=True))
            broken = next((name for name in ids if not is_whole(row[name])), None)
            if broken is not None:
                log.reject(path, number, f"{broken} is not utf-8 text", whole(header.separator.join(fields)))
                continue
            yield number, dict(zip(row, map(whole, fields), strict=True))
