"""MiniOneRec's Amazon data: samples of a history and the item after it, and item texts (2025, Apache-2.0 repository).

`<part>/<category>_....csv` for the parts train, valid and test (those that are there), `index/<category>.item.json`.
A sample holds the last ten items before its target, so a user's samples overlap: they are merged back into one history.
The samples of a user stand in time order; without the train file its earliest items, beyond ten before the first
sample, are not known.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from tessera.data.files import DataFileError, find
from tessera.data.log import Item, RawLog
from tessera.data.text import as_text, as_title
from tessera.settings.base import did_you_mean
from tessera.settings.datasets import MiniOneRecSource

PARTS = ("train", "valid", "test")
_COLUMNS = ("user_id", "history_item_id", "item_id")


class Sample(NamedTuple):
    """One row of a file."""

    file: Path
    line: int
    part: str
    history: list[str]
    target: str


def read_interactions(settings: MiniOneRecSource, log: RawLog) -> None:
    """Hand over one history a user, merged from its samples; targets carry their part as `split`.

    Raises:
        DataFileError: no part is there, or a file lacks a column.
    """
    folder = find(settings.path, settings.sha256)
    files = {part: path for part in PARTS if (path := _only(folder, f"{part}/*.csv", settings.category)) is not None}
    if not files:
        raise DataFileError(f"{folder}: holds no samples; expected train/*.csv, valid/*.csv or test/*.csv")
    by_user: dict[str, list[Sample]] = {}
    for part, path in files.items():
        for user, sample in _samples(path, part, log):
            by_user.setdefault(user, []).append(sample)
    longest = max((len(sample.history) for samples in by_user.values() for sample in samples), default=0)
    rows: list[tuple[int, str, str, str]] = []
    for user, samples in by_user.items():
        rows += [(line, user, item, part) for line, item, part in _merged(user, samples, longest, log)]
    schema = {"line": pl.Int64, "user": pl.String, "item": pl.String, "split": pl.String}
    log.add(pl.DataFrame(rows, schema, orient="row"), folder)


def _only(folder: Path, pattern: str, category: str | None) -> Path | None:
    """The one file of a pattern whose name begins with the category.

    Raises:
        DataFileError: there are several.
    """
    found = sorted(path for path in folder.glob(pattern) if path.name.startswith(category or ""))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataFileError(f"{folder}: holds several files {pattern}: {names}; say which with 'category'")
    return found[0] if found else None


def _samples(path: Path, part: str, log: RawLog) -> Iterator[tuple[str, Sample]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for column in _COLUMNS:
            if column not in (reader.fieldnames or []):
                raise DataFileError(f"{path}: has no column {column!r}{did_you_mean(column, reader.fieldnames or [])}")
        try:
            for row in reader:
                user, target = (row["user_id"] or "").strip(), (row["item_id"] or "").strip()
                history = _list(row["history_item_id"])
                if not user or not target or not history:
                    name = "user_id" if not user else "item_id" if not target else "history_item_id"
                    reason = f"{name} is missing" if not row[name] else f"{name} is no list of items"
                    log.reject(path, reader.line_num, reason, ",".join(map(str, row.values())))
                    continue
                yield user, Sample(path, reader.line_num, part, history, target)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataFileError(f"{path}: line {reader.line_num}: {error}") from None


def _list(text: str | None) -> list[str]:
    """The items of a Python list of numbers or texts; empty where it is something else."""
    found = _literal(text or "")
    return [str(entry) for entry in found] if isinstance(found, list) else []


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)  # evaluates literals alone
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _merged(user: str, samples: list[Sample], longest: int, log: RawLog) -> Iterator[tuple[int, str, str]]:
    """(line, item, part) of a user's history; samples that do not continue those before them are rejected."""
    known: list[str] = []
    for sample in samples:
        shared = _overlap(known, sample.history)
        # a history holds all items before its target, or the last `longest` of them
        if known and (not shared or len(sample.history) < min(len(known), longest)):
            shown = f"{sample.history} -> {sample.target}"
            log.reject(sample.file, sample.line, f"does not continue the samples before it (user {user})", shown)
            continue
        added = sample.history[shared:]
        # what a sample that could not be read would have told belongs to its part or this one, never to train
        yield from ((sample.line, item, sample.part if known else "train") for item in added)
        yield sample.line, sample.target, sample.part
        known += [*added, sample.target]


def _overlap(known: list[str], history: list[str]) -> int:
    """How many items at the end of `known` begin the history."""
    most = min(len(known), len(history))
    return next((count for count in range(most, 0, -1) if known[-count:] == history[:count]), 0)


def read_items(settings: MiniOneRecSource, log: RawLog) -> Iterator[Item]:
    """Title, brand, categories and description; of items that the log does not know only the id."""
    folder = find(settings.path, settings.sha256)
    path = _only(folder, "index/*.item.json", settings.category)
    if path is None:
        return
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFileError(f"{path}: not JSON: {error}") from None
    if not isinstance(items, dict):
        raise DataFileError(f"{path}: expected an object of items by id, got {type(items).__name__}")
    for number, (raw_id, told) in enumerate(items.items(), 1):
        if not isinstance(told, dict):
            log.reject(path, number, f"not an object: {type(told).__name__}", str(told))
            continue
        log.described += 1
        if str(raw_id) not in log.items:
            yield Item(str(raw_id))  # counted; what it says is not looked at
            continue
        description = told.get("description")
        paragraphs = _literal(description) if isinstance(description, str) and description.startswith("[") else None
        attributes = {
            "brand": as_text(told.get("brand")),
            "category": as_text(told.get("categories")),
            "description": as_text(description if paragraphs is None else paragraphs, " "),
        }
        told_of = {name: text for name, text in attributes.items() if text}
        yield Item(str(raw_id), as_title(told.get("title")), told_of)
