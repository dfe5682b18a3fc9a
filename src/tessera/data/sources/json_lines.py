"""JSON lines, decoded in blocks; a block that is not in order is halved until the bad lines stand alone."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tessera.data.blocks import BLOCK_BYTES, Block, as_block
from tessera.data.files import DataFileError
from tessera.data.identifiers import id_text, may_be_id
from tessera.data.log import RawLog
from tessera.data.sources.csv_rows import is_whole, whole
from tessera.data.sources.json_forms import begins_with_object, is_histories, json_blocks
from tessera.data.sources.typed_lines import TypedLines
from tessera.settings.base import did_you_mean

FEW_LINES = 64
ROWS_BYTES = 1 << 18  # small enough to stay in the processor's cache while it is decoded


_RECORDS = "; expected an object a row (in pandas: orient='records')"
# an escaped half of a character; the two halves of one
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")


def _other_form(sample: dict[str, Any]) -> str:
    return _RECORDS if sample and all(isinstance(value, dict | list) for value in sample.values()) else ""


class BadLine(ValueError):
    """A line that is not an object in the wanted form."""


def parse_line(raw: bytes, literal: bool = False) -> dict[str, Any]:
    """The object on a line.

    Args:
        literal: also take Python literals (`{'asin': ...}`), as in the metadata of 2014; nothing is executed.
    Raises:
        BadLine: it is something else.
    """
    try:
        value = json.loads(raw)
    except UnicodeDecodeError:
        raise BadLine("not utf-8 text") from None
    except (ValueError, RecursionError) as error:
        if not literal:
            raise BadLine(f"not JSON: {error}") from None
        try:
            value = ast.literal_eval(raw.decode())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise BadLine(f"neither JSON nor a Python literal: {error}") from None
    if not isinstance(value, dict):
        raise BadLine(f"not an object: {type(value).__name__}")
    return value


def json_objects(
    path: Path, log: RawLog, literal: bool = False, encoding: str | None = None
) -> Iterator[dict[str, Any]]:
    """The objects of a file one by one, for what needs all of their keys; bad lines are rejected."""
    for block in json_blocks(path, BLOCK_BYTES, encoding):
        for line, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            if not raw.strip():
                continue
            try:
                record = parse_line(raw, literal)
            except BadLine as error:
                log.reject(path, line, str(error), raw.decode("utf-8", "replace"))
                continue
            log.described += 1
            yield record


def json_rows(path: Path, columns: Mapping[str, str], log: RawLog, encoding: str | None = None) -> None:
    """Hand the rows of a file of interactions over.

    Args:
        columns: which key of the objects is `user`, `item`, `timestamp`, `rating`, `split`, `session`. The types
            are those of the first object that has the keys. An `item` that is a list makes a row of each entry.
    Raises:
        DataFileError: the first object lacks the user or the item.
    """
    schema = json_schema(path, columns, encoding)
    typed = TypedLines(path, columns, schema, log)
    reader = _Reader(path, columns, schema, log)
    for block in json_blocks(path, ROWS_BYTES, encoding):
        if typed.take(block):
            continue
        typed.flush()
        for frame in reader.parse(block):
            log.add(frame, path, _line_text(block))
    typed.flush()


def _line_text(block: Block) -> Callable[[int], str]:
    lines: list[bytes] = []

    def text(line: int) -> str:
        if not lines:
            lines.extend(block.data.split(b"\n"))
        return lines[line - block.first].decode("utf-8", "replace")

    return text


def first_objects(path: Path, encoding: str | None = None) -> list[dict[str, Any]]:
    """The good ones among the first thousand objects of a file."""
    samples: list[dict[str, Any]] = []
    for block in json_blocks(path, 1 << 20, encoding):
        for raw in block.data.split(b"\n")[:1000]:
            try:
                samples.append(parse_line(raw))
            except BadLine:
                continue
        break
    return samples


def holds_histories(path: Path, encoding: str | None = None, user: str = "user", item: str = "item") -> bool:
    """Whether a file holds lists of items by user (`{user: [item, ...]}`), and not rows with these two keys."""
    if not begins_with_object(path, encoding):
        return False
    first = first_objects(path, encoding)[:1]
    return bool(first) and is_histories(first[0], user, item)


def json_schema(path: Path, columns: Mapping[str, str], encoding: str | None = None) -> dict[str, Any]:
    """Polars types of the keys, from the first objects of the file; ids are texts.

    Raises:
        DataFileError: there are none, or none of them has the user, the item or the session.
    """
    samples = first_objects(path, encoding)
    if not samples:
        raise DataFileError(f"{path}: the first lines hold no JSON objects")
    for name in ("user", "item", "session"):
        if name in columns and not any(columns[name] in sample for sample in samples):
            key = columns[name]
            hint = did_you_mean(key, samples[0]) or _other_form(samples[0])
            raise DataFileError(f"{path}: the objects have no key {key!r} (for {name}){hint}")
        if len(samples) == 1 and isinstance(samples[0].get(columns["user"]), dict | list):
            raise DataFileError(f"{path}: one object of columns{_RECORDS}")
    schema: dict[str, Any] = {}
    for name, key in columns.items():
        value = next((sample[key] for sample in samples if sample.get(key) is not None), None)
        number = isinstance(value, int | float) and name in ("timestamp", "rating")
        # Int64: numbers, whole ones kept to the last digit
        schema[key] = (pl.Int64 if name == "timestamp" else pl.Float64) if number else pl.String
        if isinstance(value, list) and name == "item":
            schema[key] = pl.List(pl.String)
    return schema


def check_keys(path: Path, wanted: Mapping[str, str], samples: Sequence[Mapping[str, Any]]) -> None:
    """Refuse objects of which none has a key.

    Args:
        wanted: what it is for, to the key.
        samples: the first objects of the file; none says nothing.
    Raises:
        DataFileError: none of them has one of the keys.
    """
    for name, key in wanted.items():
        if samples and not any(key in sample for sample in samples):
            known = dict.fromkeys(other for sample in samples for other in sample)
            raise DataFileError(f"{path}: the objects have no key {key!r} (for {name}){did_you_mean(key, known)}")


def _lone(data: bytes) -> bool:
    """Whether a text may hold half of a character (`\\ud83d` without what belongs to it)."""
    pairs = _PAIR.sub(b"", data)
    return _HALF.search(pairs) is not None


class _Reader:
    """Turns blocks into frames of `line` and the columns, each from its key."""

    def __init__(self, path: Path, columns: Mapping[str, str], schema: dict[str, Any], log: RawLog) -> None:
        self.path, self.columns, self.log = path, columns, log
        self._times = [key for key, dtype in schema.items() if dtype == pl.Int64]
        self.schema = {key: pl.String if key in self._times else dtype for key, dtype in schema.items()}
        self._flat = _flat(self.schema)

    def parse(self, block: Block) -> Iterator[pl.DataFrame]:
        """Frames in the order of the lines."""
        try:
            # halves of characters would be left out without a word
            halves = b"\\u" in block.data and _lone(block.data)
            frame = None if halves else pl.read_ndjson(block.data, schema=self.schema)
        except pl.exceptions.PolarsError:
            frame = None
        if frame is not None and (any(_no_numbers(frame[key]) for key in self._times) or self._nested(block, frame)):
            frame = None
        if frame is not None and frame.height == block.lines:
            # a key may be called `line`, too
            named = frame.select(**{name: pl.col(key) for name, key in self.columns.items()})
            yield named.with_row_index("line", offset=block.first).with_columns(pl.col("line").cast(pl.Int64))
        elif block.lines <= FEW_LINES:
            yield self._one_by_one(block)
        else:
            half = block.data.index(b"\n", len(block.data) // 2) + 1
            if half == len(block.data):  # one long line fills the second half
                half = block.data.rindex(b"\n", 0, half - 1) + 1
            head = as_block(block.first, block.data[:half])
            yield from self.parse(head)
            yield from self.parse(as_block(block.first + head.lines, block.data[half:]))

    def _nested(self, block: Block, frame: pl.DataFrame) -> bool:
        """Whether an object, a list or a boolean stands where a text or a number should: in a frame it is a text."""
        signs = block.data.count(b"{") > block.lines or any(sign in block.data for sign in (b"[", b"true", b"false"))
        if not signs or not any(map(_may_be_nested, frame)):
            return False
        try:
            self._flat.decode_lines(block.data)
        except (msgspec.MsgspecError, RecursionError):
            return True
        return False

    def _one_by_one(self, block: Block) -> pl.DataFrame:
        rows: list[tuple[Any, ...]] = []
        for line, raw in enumerate(block.data.split(b"\n")[:-1], block.first):
            if not raw.strip():
                continue
            try:
                record = parse_line(raw)
                rows.append((line, *(self._value(key, record.get(key)) for key in self.columns.values())))
            except BadLine as error:
                self.log.reject(self.path, line, str(error), raw.decode("utf-8", "replace"))
        types = {name: self.schema[key] for name, key in self.columns.items()}
        return pl.DataFrame(rows, {"line": pl.Int64, **types}, orient="row")

    def _value(self, key: str, value: Any) -> Any:
        dtype = self.schema[key]
        if value is None:
            return None
        if isinstance(dtype, pl.List):
            if not isinstance(value, list):
                raise BadLine(f"{key} is no list: {value!r}")
            if not all(map(may_be_id, value)):
                raise BadLine(f"{key} holds what is neither text nor number: {value!r}")
            if not all(is_whole(str(entry)) for entry in value):
                raise BadLine(f"{key} holds half of a character: {whole(str(value))!r}")
            return [id_text(entry) for entry in value]
        if not may_be_id(value):
            raise BadLine(f"{key} is neither text nor number: {value!r}")
        if isinstance(value, str) and not is_whole(value):
            raise BadLine(f"{key} holds half of a character: {whole(value)!r}")
        if dtype == pl.String and key not in self._times:
            # the text that numbers get in blocks, so that one bad line changes no other
            return value if isinstance(value, str) else id_text(value)
        if isinstance(value, str) and not value.strip() and key not in self._times:
            return None
        try:
            number = float(value)
        except ValueError:
            raise BadLine(f"{key} is no number: {value!r}") from None
        return str(value) if key in self._times else number


def _flat(schema: Mapping[str, Any]) -> msgspec.json.Decoder[Any]:
    """Decoder that refuses objects, lists and booleans as texts and as entries of lists."""
    text: Any = str | int | float | None
    kinds = {key: list[text] | None if isinstance(dtype, pl.List) else text for key, dtype in schema.items()}
    names = {f"key_{number}": key for number, key in enumerate(schema)}
    fields = [(name, kinds[key], None) for name, key in names.items()]
    return msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=names, gc=False))


def _may_be_nested(column: pl.Series) -> bool:
    """Whether some text looks like an object, a list or a boolean."""
    texts = column.explode() if isinstance(column.dtype, pl.List) else column
    return texts.dtype == pl.String and bool(texts.str.contains(r"^(?:[\[{]|true$|false$)").any())


def _no_numbers(column: pl.Series) -> bool:
    """Whether some text is no number."""
    return column.cast(pl.Float64, strict=False).null_count() > column.null_count()
