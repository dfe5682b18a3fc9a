"""MiniOneRec's Amazon data: samples of a history and the item after it, and item texts (2025, Apache-2.0 repository).

`<part>/<category>_....csv` for the parts train, valid and test (those that are there), `index/<category>.item.json`.
A sample holds the last ten items before its target, so a user's samples overlap: they are merged back into one history.
The samples of a user stand in time order; without the train file its earliest items, beyond ten before the first
sample, are not known.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tessera.data.files import DataFileError, find
from tessera.data.identifiers import id_text
from tessera.data.log import Item, RawLog
from tessera.data.packed import open_bytes
from tessera.data.sources.csv_rows import check_columns, csv_records, read_header
from tessera.data.sources.list_texts import ids_of_list
from tessera.data.sources.samples import Sample, by_whole_columns, longest_history, merged
from tessera.data.text import as_text, as_title
from tessera.settings.sources.minionerec import MiniOneRecSource

PARTS = ("train", "valid", "test")
_COLUMNS = {"user": "user_id", "history": "history_item_id", "item": "item_id"}


def read_interactions(settings: MiniOneRecSource, log: RawLog) -> None:
    """Hand over one history a user, merged from its samples; targets carry their part as `split`.

    Raises:
        DataFileError: no part is there, or a file lacks a column.
    """
    folder, files = _files(settings)
    log.folder = folder
    by_user: dict[str, list[Sample]] = {}
    for part, path in files.items():
        for user, sample in _samples(path, part, log, settings.encoding):
            by_user.setdefault(user, []).append(sample)
    by_user = by_whole_columns(by_user)
    longest = longest_history(by_user)
    rows: list[tuple[int, str, str, str]] = []
    for user, samples in by_user.items():
        rows += [(line, user, item, part) for line, item, part in merged(user, samples, longest, log)]
    schema = {"line": pl.Int64, "user": pl.String, "item": pl.String, "split": pl.String}
    log.add(pl.DataFrame(rows, schema, orient="row"), folder)


def files(settings: MiniOneRecSource) -> list[Path]:
    """The parts that are there, and the items."""
    folder, samples = _files(settings)
    items = _items(folder, settings)
    return [*samples.values(), *([items] if items is not None else [])]


def check(settings: MiniOneRecSource) -> None:
    """Look for the files and their columns."""
    for path in _files(settings)[1].values():
        check_columns(path, _COLUMNS, read_header(path, ",", settings.encoding).names)


def _files(settings: MiniOneRecSource) -> tuple[Path, dict[str, Path]]:
    """The folder, and its files of samples by part."""
    folder = find(settings.path, settings.sha256)
    files = {part: path for part in PARTS if (path := _only(folder, f"{part}/*.csv", settings.category)) is not None}
    if not files:
        raise DataFileError(f"{folder}: holds no samples; expected train/*.csv, valid/*.csv or test/*.csv")
    return folder, files


def _items(folder: Path, settings: MiniOneRecSource) -> Path | None:
    """The file of its items, where there is one."""
    return _only(folder, "index/*.item.json", settings.category)


def _only(folder: Path, pattern: str, category: str | None) -> Path | None:
    """The one file of a pattern whose name begins with the category.

    Raises:
        DataFileError: there are several.
    """
    files = sorted(path for path in folder.glob(pattern) if path.name.startswith(category or ""))
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise DataFileError(f"{folder}: holds several files {pattern}: {names}; say which with 'category'")
    return files[0] if files else None


def _samples(path: Path, part: str, log: RawLog, encoding: str | None) -> Iterator[tuple[str, Sample]]:
    header = read_header(path, ",", encoding)
    for line, row in csv_records(path, _COLUMNS, list(_COLUMNS.values()), header, log, encoding):
        user, target = id_text(row["user_id"]), id_text(row["item_id"])
        history = _list(row["history_item_id"])
        if not user or not target or not history:
            name = "user_id" if not user else "item_id" if not target else "history_item_id"
            reason = f"{name} is missing" if id_text(row[name]) is None else f"{name} is no list of items"
            log.reject(path, line, reason, ",".join(row.values()))
            continue
        yield user, Sample(path, line, part, history, target)


def _list(text: str | None) -> list[str]:
    """The items of a list of numbers or texts; empty where it is something else, or an item is none."""
    items = ids_of_list(text) or []
    return [item for item in items if item is not None] if None not in items else []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # evaluates literals alone
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def read_items(settings: MiniOneRecSource, log: RawLog) -> Iterator[Item]:
    """Title, brand, categories and description; of items that the log does not know only the id."""
    log.folder = find(settings.path, settings.sha256)
    path = _items(log.folder, settings)
    if path is None:
        return
    try:
        with open_bytes(path, settings.encoding) as file:
            items = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: not JSON: {error}") from None
    if not isinstance(items, dict):
        raise DataFileError(f"{path}: expected an object of items by id, got {type(items).__name__}")
    for number, (raw_id, product) in enumerate(items.items(), 1):
        if not isinstance(product, dict):
            log.reject(path, number, f"not an object: {type(product).__name__}", str(product))
            continue
        log.described += 1
        if not log.knows(raw_id):
            yield Item(raw_id)  # counted; what it says is not looked at
            continue
        description = product.get("description")
        paragraphs = _literal(description) if isinstance(description, str) and description.startswith("[") else None
        attributes = {
            "brand": as_text(product.get("brand")),
            "category": as_text(product.get("categories")),
            "description": as_text(description if paragraphs is None else paragraphs, " "),
        }
        told_of = {name: text for name, text in attributes.items() if text}
        yield Item(raw_id, as_title(product.get("title")), told_of)
