"""Other forms of JSON than a line an object, brought into it: arrays, objects over several lines, lists by user."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tessera.data.blocks import BLOCK_BYTES, Block, as_block, blocks
from tessera.data.files import DataFileError
from tessera.data.identifiers import id_text, may_be_id
from tessera.data.log import RawLog
from tessera.data.packed import open_bytes
from tessera.data.sources.csv_rows import is_whole, whole

Form = Literal["lines", "array", "objects"]
LARGEST_OBJECT = 1 << 28
_HEAD = 1 << 20
_PIECE = 1 << 20
_SPACE = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r"[,\n\[]\s*(?=\{)")
_BOM = b"\xef\xbb\xbf"
_OBJECT = re.compile(rb'\s*\{\s*(\}\s*$|"(?:[^"\\\n]|\\.)*"\s*:)')


def json_form(path: Path, encoding: str | None = None) -> Form:
    """Whether a file holds an object a line, an array of objects, or objects that are spread over lines."""
    with open_bytes(path, encoding) as file:
        start = file.read(_HEAD).removeprefix(_BOM).lstrip()
    if start.startswith(b"["):
        return "array" if start[1:].lstrip()[:1] in (b"{", b"]", b"") else "lines"
    first, _, more = start.partition(b"\n")
    first, more = first.strip(), more.lstrip()
    if not first.startswith(b"{") or not more:
        return "lines"
    # `{`, or `{"key": [`: the object goes on, and the next line begins with a key or a value, not with another object
    goes_on = first[-1:] in b"{[,:" and not more.startswith(b'{"')
    return "objects" if goes_on and not _is_json(first) else "lines"


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def json_blocks(path: Path, size: int = BLOCK_BYTES, encoding: str | None = None) -> Iterator[Block]:
    """A file as blocks of an object a line; where it is not written so, lines count objects.

    Raises:
        DataFileError: the file is no text, packed and damaged, or an array that breaks off.
    """
    form = json_form(path, encoding)
    if form == "lines":
        yield from blocks(path, size, encoding)
        return
    waiting: list[bytes] = []
    first = number = 1
    held = 0
    for text in _objects(path, encoding, form == "array"):
        raw = text.replace("\r", " ").replace("\n", " ").encode("utf-8", "surrogateescape") + b"\n"
        waiting.append(raw)
        held += len(raw)
        number += 1
        if held >= size:
            yield as_block(first, b"".join(waiting))
            waiting, held, first = [], 0, number
    if waiting:
        yield as_block(first, b"".join(waiting))


def _objects(path: Path, encoding: str | None, array: bool) -> Iterator[str]:
    """The texts of the objects; what cannot be read is handed over as it stands, up to the next like the first."""
    decode = json.JSONDecoder().raw_decode
    utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    keys: set[str] = set()
    count = 0
    with open_bytes(path, encoding) as file:
        text = utf8.decode(file.read(_PIECE).removeprefix(_BOM))
        place = text.index("[") + 1 if array else 0
        ended = False
        while True:
            place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
            if array and text.startswith("]", place):
                if text[place + 1 :].strip() or file.read(_PIECE).strip():
                    raise DataFileError(f"{path}: more stands behind the end of the JSON array, object {count:,}")
                return
            end, sure = 0, False
            if place < len(text):
                try:
                    value, end = decode(text, place)
                    sure = end < len(text)
                    keys = keys or (set(value) if isinstance(value, dict) else set())
                except json.JSONDecodeError as error:
                    # an error before the end stays one; but a string may close in what is not read yet
                    sure = error.pos < len(text) - 64 and not error.msg.startswith("Unterminated string")
                except RecursionError:
                    sure = True
            following = _next_object(text, place, keys) if place < len(text) and not end and (sure or ended) else None
            if not ended and (not sure or not (end or following)) and len(text) - place < LARGEST_OBJECT:
                # twice as much each time, so that a large object is not begun too often
                more = file.read(max(_PIECE, len(text) - place))
                ended = not more
                text, place = text[place:] + utf8.decode(more, final=ended), 0
                continue
            if array and not end and not following:
                fault = f"the JSON array is damaged, or breaks off, after object {count:,}"
                raise DataFileError(f"{path}: {fault}; fetch or copy the file again")
            if place >= len(text):
                return
            stop = end or following or len(text)
            yield text[place:stop]
            count += 1
            place = stop


def _next_object(text: str, place: int, keys: set[str]) -> int | None:
    """Where, behind a damaged object, the next one begins: it has keys of the first, as parts of objects do not."""
    for start in _NEXT_OBJECT.finditer(text, place + 1):
        try:
            value = json.JSONDecoder().raw_decode(text, start.end())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and 2 * len(keys & set(value)) >= len(keys):
            return start.end()
    return None


def begins_with_object(path: Path, encoding: str | None = None) -> bool:
    """Whether a file begins as an object of JSON does; whether it goes on so is another question."""
    with open_bytes(path, encoding) as file:
        return _OBJECT.match(file.read(4096).removeprefix(_BOM)) is not None


def is_histories(value: Mapping[str, Any], user: str, item: str) -> bool:
    """Whether an object holds lists of items by user, and not a row or the columns of a table."""
    lists = bool(value) and all(isinstance(entry, list) for entry in value.values())
    return lists and not (user in value or item in value)


def json_histories(path: Path, log: RawLog, encoding: str | None = None) -> None:
    """Hand over `{user: [item, item, ...], ...}`: each entry is an interaction, in the order of the list.

    Rejected users are numbered as they stand. Several such objects may follow each other, one a line too.

    Raises:
        DataFileError: the file breaks off, or the objects are rows.
    """
    number, before = 0, [""]
    for block in json_blocks(path, encoding=encoding):
        rows: list[tuple[int, str, list[str | None]]] = []
        for raw in filter(bytes.strip, block.data.split(b"\n")):
            pairs = _pairs(path, raw)
            keys = [key for key, _ in pairs]
            if len(keys) > 1 and keys == before:
                names = ", ".join(map(repr, keys[:3]))
                raise DataFileError(
                    f"{path}: the objects are rows with the keys {names}, expected users and their lists of items; "
                    "rows are read by `source: columns`"
                )
            before = keys
            for user, items in pairs:
                number += 1
                if not isinstance(items, list) or not all(map(_is_id, [user, *items])):
                    log.reject(path, number, "not a list of items", whole(f"{user}: {items}"))
                    continue
                rows.append((number, user, [id_text(entry) for entry in items]))
        schema: dict[str, Any] = {"line": pl.Int64, "user": pl.String, "item": pl.List(pl.String)}
        log.add(pl.DataFrame(rows, schema, orient="row"), path)


def _pairs(path: Path, raw: bytes) -> list[tuple[str, Any]]:
    """Keys and values of an object in their order; a key that stands twice is there twice."""
    try:
        pairs = json.loads(raw, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: not JSON: {error}") from None
    return pairs if isinstance(pairs, list) else []


def _is_id(value: Any) -> bool:
    # a missing id is a row without an item, not a damaged list
    return may_be_id(value) and is_whole(str(value))
