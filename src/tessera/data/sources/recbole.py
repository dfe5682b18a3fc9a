"""RecBole atomic files (`user_id:token` headers, tab) and MMRec's (`userID itemID rating x_label`, tab)."""

from __future__ import annotations

from collections.abc import Iterator

from tessera.data.files import DataFileError, find
from tessera.data.log import Item, RawLog
from tessera.data.sources.text_rows import add_rows, field, text_rows
from tessera.settings.base import did_you_mean
from tessera.settings.datasets import RecBoleSource

_NAMES = {
    "user": ("user_id", "userID", "session_id"),
    "item": ("item_id", "itemID"),
    "timestamp": ("timestamp", "time"),
    "rating": ("rating",),
    "split": ("x_label",),
}
_TITLES = ("title", "movie_title", "name", "item_name")


def _plain(names: list[str]) -> list[str]:
    """Names of the fields without the types behind the colon."""
    return [name.rsplit(":", 1)[0].strip() for name in names]


def read_interactions(settings: RecBoleSource, log: RawLog) -> None:
    """Hand the rows of the `.inter` file over.

    Raises:
        DataFileError: there is no column of users or items.
    """
    path = find(settings.path, settings.sha256)
    for names, frame in text_rows(path, "\t", log):
        plain = _plain(names)
        places = {key: plain.index(n) for key, known in _NAMES.items() for n in known if n in plain}
        for key in ("user", "item"):
            if key not in places:
                expected = _NAMES[key][0]
                raise DataFileError(f"{path}: line 1: no column {expected!r}{did_you_mean(expected, plain)}")
        add_rows(log, path, frame, **{key: field(place) for key, place in places.items()})


def read_items(settings: RecBoleSource, log: RawLog) -> Iterator[Item]:
    """Every column of the `.item` file but the id; token sequences stay one text."""
    if settings.items_file is None:
        return
    path = find(settings.items_file)
    for names, frame in text_rows(path, "\t", log):
        plain = _plain(names)
        key = next((name for name in _NAMES["item"] if name in plain), None)
        if key is None:
            raise DataFileError(f"{path}: line 1: no column 'item_id'{did_you_mean('item_id', plain)}")
        title = next((name for name in _TITLES if name in plain), None)
        for fields in frame["fields"]:
            row = dict(zip(plain, fields, strict=True))
            attributes = {name: text for name, text in row.items() if text and name not in (key, title)}
            yield Item(row[key], row[title] if title else None, attributes)
