"""Text files of histories in time order, as many recommenders publish them.

Layouts: `user item` a line (pairs), `user item item ...` a line (lines), or `item item ...` a line, the user being the
line number (lines_without_user). A `targets` file adds one held-out item a user, `item` or `user item` a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from tessera.data.blocks import blocks, lines
from tessera.data.files import DataFileError, find
from tessera.data.log import Item, RawLog
from tessera.data.packed import text_form
from tessera.data.sources.json_forms import begins_with_object, json_histories
from tessera.data.sources.text_rows import text_lines
from tessera.settings.sources.sequences import SequencesSource


def read_interactions(settings: SequencesSource, log: RawLog) -> None:
    """Hand the histories over, and the held-out items of `targets` behind them as test rows."""
    path = find(settings.path, settings.sha256)
    if begins_with_object(path, settings.encoding):
        if settings.targets is not None:
            raise DataFileError(f"{path}: holds lists by user as JSON, which take no `targets`")
        json_histories(path, log, settings.encoding)
        return
    users = 0
    for frame in _words(path, log, settings.encoding):
        users = max(users, _last_line(frame))
        _add(frame, path, settings.layout, log, None)
    if settings.targets is None:
        return
    targets = find(settings.targets)
    for frame in _words(targets, log, settings.encoding):
        layout = "lines_without_user" if (frame["words"].list.len() == 1).all() else "lines"
        if layout == "lines_without_user" and settings.layout != layout:
            raise DataFileError(
                f"{targets}: holds items alone, expected `user item` lines for layout {settings.layout}"
            )
        if layout == "lines_without_user" and _last_line(frame) > users:
            raise DataFileError(f"{targets}: has more lines than {path} ({users:,}): lines are matched one by one")
        _add(frame, targets, layout, log, "test")


def check(settings: SequencesSource) -> None:
    """Look whether the files are text."""
    text_form(find(settings.path, settings.sha256), settings.encoding)


def check_items(settings: SequencesSource) -> None:
    """Look whether the film files are what they should be, by the name of one and the first line of the other."""
    if settings.films is None:
        return
    from tessera.data.sources.movielens import film_reader

    film_reader(find(settings.films))
    if settings.film_ids is not None:
        path = find(settings.film_ids)
        for number, line in lines(path, settings.encoding):
            _film_id(path, number, line)
            break


def _film_id(path: Path, number: int, line: str) -> list[str]:
    """The item and the film of a line.

    Raises:
        DataFileError: they are not two.
    """
    words = line.split()
    if len(words) != 2:
        raise DataFileError(f"{path}: line {number}: {line!r}, expected `item film`")
    return words


def _last_line(frame: pl.DataFrame) -> int:
    return int(frame["line"][-1]) if frame.height else 0


def _words(path: Path, log: RawLog, encoding: str | None) -> Iterator[pl.DataFrame]:
    for block in blocks(path, encoding=encoding):
        frame = text_lines(block, path, log)
        yield frame.with_columns(words=pl.col("text").str.strip_chars().str.replace_all(r"[\s]+", " ").str.split(" "))


def _add(frame: pl.DataFrame, path: Path, layout: str, log: RawLog, split: str | None) -> None:
    if layout == "lines_without_user":
        rows = frame.select("line", user=pl.col("line").cast(pl.String), item="words")
    else:
        size = pl.col("words").list.len()
        wrong = size != 2 if layout == "pairs" else size < 2
        expected = "`user item`" if layout == "pairs" else "`user item ...`"
        for line, text, words in frame.filter(wrong).iter_rows():
            log.reject(path, line, f"{len(words)} fields, expected {expected}", text)
        words = pl.col("words").list
        rows = frame.filter(~wrong).select("line", user=words.get(0), item=words.slice(1))
    rows = rows.explode("item")
    if split is not None:
        rows = rows.with_columns(split=pl.lit(split))
    log.add(rows, path)


def read_items(settings: SequencesSource, log: RawLog) -> Iterator[Item]:
    """The films of `films` under the items' own ids; else these files tell nothing, but an `items` file may."""
    if settings.films is None:
        return
    from tessera.data.sources.movielens import films

    named: dict[str, list[str]] = {}
    if settings.film_ids is not None:
        path = find(settings.film_ids)
        for number, line in lines(path, settings.encoding):
            own, film_id = _film_id(path, number, line)
            named.setdefault(film_id, []).append(own)
    for film in films(find(settings.films), log, settings.encoding):
        for own in named.get(film.raw_id, []) if settings.film_ids is not None else [film.raw_id]:
            yield replace(film, raw_id=own, attributes=dict(film.attributes))
