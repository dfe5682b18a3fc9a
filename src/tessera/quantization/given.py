"""Semantic IDs that exist already: JSON of raw item ids to lists of codes, as LETTER and MiniOneRec publish them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.artifacts.logs import log
from tessera.data.dataset import read_raw_ids
from tessera.data.files import find
from tessera.data.given_codes import GivenCodesError, check_codes, read_codes
from tessera.data.identifiers import positions_in
from tessera.data.joins import Join
from tessera.quantization.conflicts import resolve
from tessera.settings.quantizers.given import GivenCodes


def check(settings: GivenCodes) -> None:
    """Refuse a file that holds no codes by item, by its first entry; raises as `check_codes`."""
    check_codes(find(settings.path))


def read(settings: GivenCodes, source: Path, items_parquet: Path) -> SemanticIds:
    """Codes of the dataset's items from a file, collisions dealt with as the settings say.

    A level has as many codes as the largest of the whole file says, and one for zero. Items that the file does not name
    have no codes; ids of the file that the dataset does not know are left out. Both are counted in the log.

    Args:
        source: the JSON file.
        items_parquet: the dataset's items.
    Raises:
        GivenCodesError: the file is no such JSON, codes are missing, are no numbers or too large ones, or it knows no
            item of the dataset.
    """
    raw_ids, rows = read_codes(source)
    if settings.offset:
        raw_ids = _shifted(source, raw_ids, settings.offset)
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


def _shifted(source: Path, raw_ids: list[str], offset: int) -> list[str]:
    """Ids that are numbers, with another number added to each."""
    written: dict[int, str] = {}
    for raw in raw_ids:
        try:
            number = int(raw.removesuffix(".0"))
        except ValueError:
            raise GivenCodesError(f"{source}: id {raw!r} is no number, so no offset can be added to it") from None
        if number in written:
            raise GivenCodesError(
                f"{source}: the ids {written[number]!r} and {raw!r} are one number, {number}; with an 'offset' every "
                "item needs a number of its own"
            )
        written[number] = raw
    return [str(number + offset) for number in written]
