"""The quick way through JSON lines: only the wanted keys are decoded, whole blocks at a time, by their expected types.

What is not plainly in order is left alone here: a block is decoded or refused as a whole, and whoever asks then reads a
refused one with care. That keeps line numbers, reasons and lenient conversions in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from tessera.data.blocks import Block
from tessera.data.log import RawLog

WAITING_ROWS = 1 << 18
OBJECT_ROWS = 1 << 13  # as Python objects; beyond, they would leave the processor's cache
WAITING_BLOCKS = 64
_TIMES = 10**8, 2**63  # numbers outside may not be unix times, so that the log has to look at their lines
_OPEN, _CLOSE = b"{}"
_TYPES: dict[Any, Any] = {pl.String: str | None, pl.Float64: float | None, pl.Int64: int | float | None}


class TypedLines:
    """Collects the rows of blocks in columns and hands them to the log in large frames."""

    def __init__(self, path: Path, columns: Mapping[str, str], schema: Mapping[str, Any], log: RawLog) -> None:
        self._path, self._log = path, log
        self._types = {name: schema[key] for name, key in columns.items()}
        self._decode = _decoder(columns, self._types)
        # The log itself finds out whether a text is a time or a number, and then asks for the text of a bad line. Where
        # nothing of that kind can come, no block needs to be kept, and the next one finds its memory warm.
        self._keeps_blocks = any(self._types.get(name) == pl.String for name in ("timestamp", "rating", "split"))
        self._start()

    def _start(self) -> None:
        self._waiting: list[Block] = []
        self._frames: list[pl.DataFrame] = []
        self._values: dict[str, list[Any]] = {name: [] for name in self._types}
        self._rows = self._first = 0

    def take(self, block: Block) -> bool:
        """Take the rows of a block; false, and nothing is taken, if a line of it is not plainly one usable object."""
        if self._decode is None or not _one_object_a_line(block) or not _is_utf8(block.data):
            return False
        try:
            rows = self._decode.decode_lines(block.data)
        except (msgspec.MsgspecError, RecursionError):
            return False
        values = {name: list(map(attrgetter(name), rows)) for name in self._types}
        if len(rows) != block.lines or not all(map(_usable, values, values.values())):
            return False
        if not self._rows:
            self._first = block.first
        for name, column in values.items():
            self._values[name] += column
        self._rows += len(rows)
        if self._keeps_blocks:
            self._waiting.append(block)
        if len(self._values["user"]) >= OBJECT_ROWS:
            self._pack()
        if self._rows >= WAITING_ROWS or len(self._waiting) == WAITING_BLOCKS:
            self.flush()
        return True

    def _pack(self) -> None:
        columns = [_series(name, values, self._types[name]) for name, values in self._values.items()]
        self._frames.append(pl.DataFrame(columns))
        for values in self._values.values():
            values.clear()

    def flush(self) -> None:
        """Hand over what waits."""
        if not self._rows:
            return
        self._pack()
        numbered = pl.concat(self._frames, how="vertical_relaxed").with_row_index("line", offset=self._first)
        frame, waiting = numbered.with_columns(pl.col("line").cast(pl.Int64)), self._waiting
        self._log.add(frame, self._path, lambda number: _line(waiting, number))
        self._start()


def _series(name: str, values: list[Any], dtype: Any) -> pl.Series:
    """A column; numbers of which some are fractions become floats."""
    try:
        return pl.Series(name, values, dtype)
    except TypeError:
        return pl.Series(name, values, pl.Float64, strict=False)


def _line(blocks: list[Block], number: int) -> str | None:
    """Text of a line, where its block was kept."""
    block = next((block for block in reversed(blocks) if block.first <= number), None)
    if block is None:
        return None
    place = number - block.first
    start = int(block.ends[place - 1]) + 1 if place else 0
    return block.data[start : int(block.ends[place])].decode("utf-8", "replace")


def _usable(name: str, values: list[Any]) -> bool:
    """Whether no row will be rejected for these values; texts that should be times or numbers are not looked into."""
    if name in ("user", "item", "session"):
        return None not in values and all(map(str.strip, values))
    if name == "timestamp":
        if None in values or isinstance(values[0], str):
            return None not in values
        return bool(_TIMES[0] <= min(values) and max(values) < _TIMES[1])
    return True


def _decoder(columns: Mapping[str, str], types: Mapping[str, Any]) -> msgspec.json.Decoder[Any] | None:
    """Decoder of objects with the wanted keys; None if one is of a type that needs the careful way."""
    if not all(dtype in _TYPES for dtype in types.values()) or len(set(columns.values())) < len(columns):
        return None
    fields = [(name, _TYPES[dtype], None) for name, dtype in types.items()]
    return msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=dict(columns), gc=False))


def _one_object_a_line(block: Block) -> bool:
    """Whether every line starts with a brace and ends with one.

    Within JSON no newline stands between a closing and an opening brace. So where also the number of objects is that
    of the lines, each line is exactly one object.
    """
    if not block.lines or block.data[0] != _OPEN:
        return False
    text = np.frombuffer(block.data, np.uint8)
    return bool((text[block.ends - 1] == _CLOSE).all() and (text[block.ends[:-1] + 1] == _OPEN).all())


def _is_utf8(data: bytes) -> bool:
    """Whether all of it is text; the decoder looks only at what it keeps."""
    if data.isascii():
        return True
    offsets = pa.py_buffer(np.array([0, len(data)], np.int32))
    try:
        pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
