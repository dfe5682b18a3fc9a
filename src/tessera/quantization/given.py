"""Semantic IDs that exist already: JSON of raw item ids to lists of codes, as LETTER and MiniOneRec publish them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.artifacts.logs import log
from tessera.data.dataset import read_raw_ids
from tessera.data.identifiers import positions_in
from tessera.data.joins import Join
from tessera.quantization.conflicts import resolve
from tessera.settings.quantizers.given import GivenCodes

# <a_12>, a_12 or 12
_CODE = re.compile(r"<?(?:[A-Za-z]+_)?(\d+)>?")


class GivenCodesError(ValueError):
    """A file of codes is not what it should be."""


def read(settings: GivenCodes, source: Path, items_parquet: Path) -> SemanticIds:
    """Codes of the dataset's items from a file, collisions dealt with as the settings say.

    A level has as many codes as the largest of the whole file says, and one for zero. Items that the file does not name
    have no codes; ids of the file that the dataset does not know are left out. Both are counted in the log.

    Args:
        source: the JSON file.
        items_parquet: the dataset's items.
    Raises:
        GivenCodesError: the file is no such JSON, codes are missing or are no numbers, or it knows no item of the
            dataset.
    """
    raw_ids, rows = _read(source)
    if settings.offset:
        raw_ids = [_shifted(source, raw, settings.offset) for raw in raw_ids]
    known = read_raw_ids(items_parquet.parent, "items")
    items_of = positions_in(raw_ids, known[1:])
    pairs = [(item + 1, row) for item, row in zip(items_of, rows.tolist(), strict=True) if item >= 0]
    join = Join(dict.fromkeys(known[1:]))
    for raw, item in zip(raw_ids, items_of, strict=True):
        join.meet(known[item + 1] if item >= 0 else raw)
    hint = "; where the file counts from another number, say so with 'offset'"
    join.tell(source, "items of the dataset", GivenCodesError, hint)
    items = np.array([item for item, _ in pairs])
    order = np.argsort(items)
    items, rows_found = items[order], np.array([row for _, row in pairs], np.int64)[order]
    resolved = resolve(settings.conflicts, rows_found, None, [int(size) for size in rows.max(0) + 1])
    log.info("%s: %d items, %d collisions, %d after", source, len(pairs), resolved.before, resolved.after)
    codes = np.full((len(known), len(resolved.sizes)), ABSENT, np.int64)
    codes[items] = resolved.codes
    return SemanticIds(codes, (Part("codes", resolved.sizes, extra=resolved.extra),))


def _read(source: Path) -> tuple[list[str], np.ndarray]:
    """Raw ids and (ids, levels) codes of the file."""
    try:
        pairs = json.loads(source.read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except (ValueError, UnicodeDecodeError) as error:
        raise GivenCodesError(f"{source}: is no JSON ({error})") from None
    if not isinstance(pairs, _Pairs) or not pairs:
        raise GivenCodesError(f"{source}: expected one object of raw item ids to lists of codes")
    ids = [raw for raw, _ in pairs]
    if len(set(ids)) < len(ids):
        twice = next(raw for number, raw in enumerate(ids) if raw in ids[:number])
        raise GivenCodesError(f"{source}: names the id {twice!r} twice")
    rows = [_codes(source, raw, value) for raw, value in pairs]
    for raw, row in zip(ids, rows, strict=True):
        if len(row) != len(rows[0]):
            raise GivenCodesError(
                f"{source}: id {raw!r} has {len(row)} codes, but id {ids[0]!r} has {len(rows[0])}; all need as many"
            )
    return ids, np.array(rows, np.int64)


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with the keys that it repeats."""


def _codes(source: Path, raw: str, value: Any) -> list[int]:
    if not isinstance(value, list) or isinstance(value, _Pairs) or not value:
        raise GivenCodesError(f"{source}: id {raw!r} has {json.dumps(value)[:60]}, expected a list of codes")
    return [_code(source, raw, code) for code in value]


def _code(source: Path, raw: str, code: Any) -> int:
    if isinstance(code, int) and not isinstance(code, bool) and code >= 0:
        return code
    matched = _CODE.fullmatch(code) if isinstance(code, str) else None
    if matched is None:
        raise GivenCodesError(f"{source}: id {raw!r} has the code {code!r}, expected a number from 0 or '<a_12>'")
    return int(matched[1])


def _shifted(source: Path, raw: str, offset: int) -> str:
    try:
        return str(int(raw.removesuffix(".0")) + offset)
    except ValueError:
        raise GivenCodesError(f"{source}: id {raw!r} is no number, so no offset can be added to it") from None
