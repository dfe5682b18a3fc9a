"""Files of semantic IDs that exist already: JSON of raw item ids to lists of codes, read whole or looked at."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tessera.settings.quantizers.base import MOST_CODES

# <a_12>, a_12 or 12; no more digits than a code may have, as numbers of any length take their time
_CODE = re.compile(r"(<)?(?:([A-Za-z]+)_)?0*(\d{1,9})(?(1)>)")
_EXPECTED = "expected one object of raw item ids to lists of codes"
_LOOKED_AT = 1 << 16
"""Characters of a file that are read before anything runs."""


class GivenCodesError(ValueError):
    """A file of codes is not what it should be."""


def read_codes(source: Path) -> tuple[list[str], np.ndarray]:
    """Raw ids and (ids, levels) codes of the file.

    Raises:
        GivenCodesError: it is no such JSON, or codes are missing, are no numbers or too large ones.
    """
    with _not_too_deep(source):
        return _read(source)


def _read(source: Path) -> tuple[list[str], np.ndarray]:
    try:
        pairs = json.loads(source.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    except ValueError as error:
        raise GivenCodesError(f"{source}: is no JSON ({error})") from None
    if not isinstance(pairs, _Pairs) or not pairs:
        raise GivenCodesError(f"{source}: {_EXPECTED}")
    ids = [raw for raw, _ in pairs]
    if len(set(ids)) < len(ids):
        twice = next(raw for raw, count in Counter(ids).items() if count > 1)
        raise GivenCodesError(f"{source}: names the id {twice!r} twice")
    rows = [_codes(source, raw, value) for raw, value in pairs]
    for raw, row in zip(ids, rows, strict=True):
        if len(row) != len(rows[0]):
            raise GivenCodesError(
                f"{source}: id {raw!r} has {len(row)} codes, but id {ids[0]!r} has {len(rows[0])}; all need as many"
            )
    first: dict[int, tuple[str, str]] = {}
    for raw, value in pairs:
        for level, letter in enumerate(_letters(value), 1):
            other, known = first.setdefault(level, (raw, letter)) if letter is not None else (raw, letter)
            if letter != known:
                raise GivenCodesError(
                    f"{source}: code {level} of id {raw!r} is one of {letter!r}, but that of id {other!r} is one of "
                    f"{known!r}; a code counts by its place, so all items need the same order"
                )
    return ids, np.array(rows, np.int64)


def check_codes(source: Path) -> None:
    """Refuse a file that holds no codes by item, by its first entry.

    Raises:
        GivenCodesError: so it is.
    """
    with _not_too_deep(source):
        _check(source)


def _check(source: Path) -> None:
    try:
        with source.open(encoding="utf-8-sig") as file:
            start = file.read(_LOOKED_AT).lstrip()
    except UnicodeDecodeError as error:
        raise GivenCodesError(f"{source}: is no JSON ({error})") from None
    if not start.startswith("{"):
        raise GivenCodesError(f"{source}: {_EXPECTED}, but begins with {start[:20]!r}")
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    try:
        raw, end = decoder.raw_decode(start[1:].lstrip())
        value, _ = decoder.raw_decode(start[1:].lstrip()[end:].lstrip().removeprefix(":").lstrip())
    except ValueError:
        return  # damaged, or longer than what was read: told by the job, with its place
    if isinstance(raw, str):
        _codes(source, raw, value)


@contextmanager
def _not_too_deep(source: Path) -> Iterator[None]:
    """Refuse what is nested more deeply than Python follows, be it where it is read or where it is shown."""
    try:
        yield
    except RecursionError:
        raise GivenCodesError(f"{source}: {_EXPECTED}, but it is nested too deeply") from None


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with the keys that it repeats."""


def _codes(source: Path, raw: str, value: Any) -> list[int]:
    if not isinstance(value, list) or isinstance(value, _Pairs) or not value:
        raise GivenCodesError(f"{source}: id {raw!r} has {json.dumps(value)[:60]}, expected a list of codes")
    return [_code(source, raw, code) for code in value]


def _letters(codes: list[Any]) -> list[str | None]:
    """How the levels of an item's codes are named, `a` of `<a_12>`; None of a bare number."""
    matched = [_CODE.fullmatch(code) if isinstance(code, str) else None for code in codes]
    return [None if match is None else match[2] for match in matched]


def _code(source: Path, raw: str, code: Any) -> int:
    matched = _CODE.fullmatch(code) if isinstance(code, str) else None
    number = int(matched[3]) if matched else code
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MOST_CODES:
        return number
    raise GivenCodesError(
        f"{source}: id {raw!r} has the code {code!r:.60}, expected a number from 0 to {MOST_CODES - 1:,} or '<a_12>'"
    )
