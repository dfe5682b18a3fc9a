"""Scores and ranked lists that another program made: a row a user and item, read block by block.

What is kept is what ranking needs: for each user of the dataset the items that have a row, best first, and how many
steps there are from one to the next. It takes six bytes a row; the work on the way lies in files, not in memory.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError
from tessera.data.files import DataFileError, parts
from tessera.data.identifiers import id_texts, positions_in
from tessera.data.joins import Join, quoted
from tessera.data.log import REJECTED_KEPT, ItemsLog
from tessera.data.sources.columns import format_of
from tessera.data.sources.csv_rows import Header, check_columns, csv_frames, read_header
from tessera.data.sources.parquet_rows import check_types, parquet_frames, parquet_schema
from tessera.settings.base import did_you_mean
from tessera.settings.systems.given import GivenSystem

BLOCK_ROWS = 1 << 20
"""Rows that are worked on at once."""
REJECTED = "rejected.parquet"

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Origin = Callable[[int], tuple[Path, int]]
"""The file and the line of the n-th of some rows."""


class ScoresError(ArtifactError):
    """A file of scores is not what it should be."""


@dataclass(frozen=True)
class GivenScores:
    """Items in the order that a file gives them, user by user."""

    offsets: Longs
    """(users + 2,) the items of user u stand in rows offsets[u]:offsets[u + 1]; user 0 has none."""
    items: Ints
    """(rows,) item ids, best first within a user."""
    levels: npt.NDArray[np.int16] | Ints
    """(rows,) how many different scores of the user lie at or below the item's: equal ones have the same level."""


def order_column(settings: GivenSystem, names: list[str], path: Path) -> tuple[str, bool]:
    """The column that orders items, and whether it holds ranks.

    Raises:
        ScoresError: there is none.
    """
    if settings.score is not None or settings.rank is not None:
        return settings.score or str(settings.rank), settings.score is None
    for name in ("score", "rank"):
        if name in names:
            return name, name == "rank"
    near = did_you_mean("score", names)
    raise ScoresError(f"{path}: has no column 'score' and no 'rank'; name yours with the key score or rank{near}")


def check_scores(settings: GivenSystem, source: Path) -> None:
    """Read the first lines of a file, and refuse one that lacks a column.

    Raises:
        DataFileError: it does, or is damaged.
        ScoresError: nothing in it orders items.
    """
    for path in parts(source):
        _open(settings, path, ItemsLog())


def _open(settings: GivenSystem, path: Path, aside: ItemsLog) -> tuple[Callable[[], Iterator[pl.DataFrame]], bool]:
    """What gives the frames `line`, `user`, `item`, `value` of a file, and whether its values are ranks."""
    columns = {"user": settings.user, "item": settings.item}
    if format_of(path) == "parquet":
        schema = parquet_schema(path)
        check_columns(path, columns, schema.names)
        columns["value"], ranks = order_column(settings, schema.names, path)
        check_types(path, columns, schema, lists=False)
        return lambda: parquet_frames(path, columns, aside), ranks
    if format_of(path) == "json":
        raise DataFileError(f"{path}: is JSON; scores are read from CSV or Parquet")
    header: Header = read_header(path)
    check_columns(path, columns, header.names)
    columns["value"], ranks = order_column(settings, header.names, path)
    check_columns(path, columns, header.names)
    return lambda: csv_frames(path, columns, header, aside), ranks


class _Codes:
    """The ids of a column as numbers from 0, in the order in which they come."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, ids: pl.Series) -> Ints:
        """(rows,) the number of each id."""
        distinct = ids.unique(maintain_order=True)
        numbers = [self.known.setdefault(raw, len(self.known)) for raw in distinct.to_list()]
        place = pl.DataFrame({"id": distinct, "number": pl.Series(numbers, dtype=pl.Int32)})
        joined = ids.alias("id").to_frame().join(place, on="id", how="left", maintain_order="left")
        return np.asarray(joined["number"].to_numpy(), np.int32)

    def dense(self, raw_ids: list[str]) -> Ints:
        """(numbers,) the dense id of each number; 0 where the dataset does not know it."""
        return np.array(positions_in(self.known, raw_ids[1:]), np.int32) + 1


def read_scores(
    settings: GivenSystem,
    files: list[Path],
    raw_users: list[str],
    raw_items: list[str],
    judged: list[str],
    folder: Path,
) -> GivenScores:
    """Read a file of scores or lists.

    Rows of users and items that the dataset does not know, rows without an id and rows that repeat a user and item are
    counted, told, and kept aside in `rejected.parquet`; of a repeated pair the first row counts. A score of minus
    infinity is none.

    Args:
        settings: the names of the columns.
        files: the file, or the parts of one.
        raw_users: raw ids by dense id, position 0 unused.
        raw_items: the same for items.
        judged: raw ids of the test users.
        folder: where rows are kept aside, and where the work lies meanwhile.
    Raises:
        ScoresError: a score is no number, or the file knows none of the test users or none of the items.
        DataFileError: the file is damaged, or lacks a column.
    """
    aside = ItemsLog()
    aside.folder = _folder_of(files)
    source = files[0] if len(files) == 1 else aside.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scores-") as work:
        coded = _Coded(Path(work))
        try:
            for path in files:
                _read(settings, path, coded, aside)
        finally:
            coded.close()
        users, items = coded.users.dense(raw_users), coded.items.dense(raw_items)
        _meet(source, coded, users, items, raw_users, raw_items, judged)
        made = _by_user(source, coded, users, items, (raw_users, raw_items), aside, Path(work))
    if aside.reasons:
        aside.write_rejected(folder / REJECTED)
        aside.tell_rejected(folder / REJECTED)
    else:
        (folder / REJECTED).unlink(missing_ok=True)
    return made


def _folder_of(files: list[Path]) -> Path:
    """Where all files lie, above folders such as `day=3`."""
    folder = Path(os.path.commonpath([path.parent for path in files]))
    while "=" in folder.name:
        folder = folder.parent
    return folder


def _named(
    raw_ids: tuple[list[str], list[str]], users: np.ndarray, items: np.ndarray, values: np.ndarray, ranks: bool
) -> Callable[[int], tuple[Any, ...]]:
    """What gives the raw user, the raw item and the value of the n-th row, a rank as the file has it."""
    return lambda number: (
        raw_ids[0][users[number]], raw_ids[1][items[number]],
        f"{-values[number]:g}" if ranks else values[number],
    )  # fmt: skip


class _Coded:
    """The rows of a file as numbers, in files."""

    def __init__(self, work: Path) -> None:
        self.users, self.items = _Codes(), _Codes()
        self.rows = 0
        self.unscored = 0
        """Rows whose score is minus infinity."""
        self.ranks = False
        """Whether the values are ranks, negated."""
        self._types: dict[str, Any] = {"user": np.int32, "item": np.int32, "value": np.float64, "line": np.int64}
        self._paths = {name: work / name for name in self._types}
        self._files = {name: path.open("wb") for name, path in self._paths.items()}
        self._parts: list[Path] = []
        self._firsts: list[int] = []

    def begin(self, path: Path) -> None:
        """The rows that come are those of this file."""
        self._parts.append(path)
        self._firsts.append(self.rows)

    def write(self, frame: pl.DataFrame) -> None:
        """Take rows."""
        columns = {
            "user": self.users.of(frame["user"]), "item": self.items.of(frame["item"]),
            "value": frame["value"].to_numpy(), "line": frame["line"].to_numpy(),
        }  # fmt: skip
        for name, values in columns.items():
            self._files[name].write(np.ascontiguousarray(values, self._types[name]).data)
        self.rows += frame.height

    def close(self) -> None:
        """No more rows come."""
        for file in self._files.values():
            file.close()

    def blocks(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Users, items, values and numbers of the rows, block by block."""
        mapped = [self._column(name) for name in ("user", "item", "value")]
        for start in range(0, self.rows, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, self.rows)
            yield *(np.asarray(column[start:end]) for column in mapped), np.arange(start, end)

    def origin(self, rows: np.ndarray) -> Origin:
        """What gives the file and the line of the n-th of some rows."""
        lines = self._column("line")
        return lambda number: (self._parts[bisect_right(self._firsts, rows[number]) - 1], int(lines[rows[number]]))

    def _column(self, name: str) -> np.ndarray:
        return _mapped(self._paths[name], self._types[name], self.rows)


def _mapped(path: Path, kind: Any, rows: int, mode: Any = "r") -> np.ndarray:
    """An array in a file; of no rows, one in memory, for nothing can be mapped."""
    return np.memmap(path, kind, mode, shape=(rows,)) if rows else np.zeros(0, kind)


def _read(settings: GivenSystem, path: Path, coded: _Coded, aside: ItemsLog) -> None:
    frames, ranks = _open(settings, path, aside)
    coded.begin(path)
    for frame in _joined(frames()):
        checked = _numbers(frame, path, "rank" if ranks else "score")
        for name in ("user", "item"):
            without = checked.filter(pl.col(name).is_null())
            values, lines = without.select(pl.all().exclude("line")), without["line"]
            _set_aside(aside, len(lines), partial(_line_of, path, lines), f"{name} is missing", values.row)
            checked = checked.drop_nulls(name)
        kept = checked.filter(pl.col("value").is_finite())
        coded.unscored += checked.height - kept.height
        coded.ranks = ranks
        coded.write(kept.with_columns(value=-pl.col("value")) if ranks else kept)


def _joined(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames of enough rows that a block of work is worth its cost."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(part.height for part in waiting) >= BLOCK_ROWS:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _line_of(path: Path, lines: pl.Series, number: int) -> tuple[Path, int]:
    return path, int(lines[number])


def _set_aside(aside: ItemsLog, rows: int, origin: Origin, reason: str, row: Callable[[int], tuple[Any, ...]]) -> None:
    """Count rows, and keep as many of them as are kept at all; `row` gives the values of the n-th."""
    kept = min(rows, max(REJECTED_KEPT - aside.kept, 0))
    for number in range(kept):
        shown = " ".join("" if value is None else str(value) for value in row(number))
        aside.reject(*origin(number), reason, shown)
    if kept < rows:
        aside.reasons[reason] += rows - kept


def _numbers(frame: pl.DataFrame, path: Path, what: str) -> pl.DataFrame:
    """Ids as texts and values as numbers.

    Raises:
        ScoresError: a value is none.
    """
    has = frame.schema
    said = pl.col("value").str.strip_chars() if has["value"] == pl.String else pl.col("value")
    read = frame.select(
        "line",
        user=id_texts(pl.col("user"), has["user"]),
        item=id_texts(pl.col("item"), has["item"]),
        value=said.cast(pl.Float64, strict=False),
        said=pl.col("value").cast(pl.String),
    )
    endless = np.inf if what == "score" else -np.inf
    bad = read["value"].is_null() | read["value"].is_nan() | (read["value"] == endless)
    if bad.any():
        row = read.filter(bad).row(0, named=True)
        shown = "missing" if row["said"] in (None, "") else f"{row['said'][:80]!r}"
        raise ScoresError(
            f"{path}: row {row['line']}: the {what} of item {row['item']!r} for user {row['user']!r} is {shown}, "
            f"expected a finite number; so are {int(bad.sum()) - 1:,} more of {frame.height:,} rows there"
        )
    return read.drop("said")


def _meet(
    source: Path, coded: _Coded, users: Ints, items: Ints, raw_users: list[str], raw_items: list[str], judged: list[str]
) -> None:
    """Say how many test users and items the file knows.

    Raises:
        ScoresError: none.
    """
    if not coded.rows:
        raise ScoresError(f"{source}: holds no row that can be read")
    met = Join(dict.fromkeys(judged))
    known = set(raw_users)
    for raw, user in zip(coded.users.known, users.tolist(), strict=True):
        name = raw_users[user] if user else raw
        if name in met.known or name not in known:  # rows of users who are not judged do no harm
            met.meet(name)
    if not met.rows:
        raise ScoresError(f"{source}: has no row of a test user; test users: {quoted(judged)}")
    met.tell(source, "test users", ScoresError)
    catalogue = Join(dict.fromkeys(raw_items[1:]))
    for raw, item in zip(coded.items.known, items.tolist(), strict=True):
        catalogue.meet(raw_items[item] if item else raw)
    if catalogue.strangers or not catalogue.met:  # lists need not name every item
        catalogue.tell(source, "items of the dataset", ScoresError)


def _by_user(
    source: Path, coded: _Coded, users: Ints, items: Ints, raw_ids: tuple[list[str], list[str]], aside: ItemsLog,
    work: Path,
) -> GivenScores:  # fmt: skip
    """The rows of known users and items, user by user."""
    count = len(raw_ids[0]) - 1
    raw = [*coded.users.known], [*coded.items.known]
    sizes = np.zeros(count + 2, np.int64)
    for user, item, value, number in coded.blocks():
        owner, thing = users[user], items[item]
        kept = (owner > 0) & (thing > 0)
        sizes[1:] += np.bincount(owner[kept], minlength=count + 1)
        for name, strange in (("user", owner == 0), ("item", (owner > 0) & (thing == 0))):
            rows = np.flatnonzero(strange)
            shown = _named(raw, user[rows], item[rows], value[rows], coded.ranks)
            _set_aside(aside, len(rows), coded.origin(number[rows]), f"{name} is not in the dataset", shown)
    offsets = np.cumsum(sizes)
    known = int(offsets[-1])
    stored = {name: _mapped(work / f"{name}-by-user", kind, known, "w+")
              for name, kind in (("item", np.int32), ("value", np.float64), ("row", np.int64))}  # fmt: skip
    following = offsets[:-1].copy()
    for user, item, value, number in coded.blocks():
        owner, thing = users[user], items[item]
        kept = np.flatnonzero((owner > 0) & (thing > 0))
        kept = kept[np.argsort(owner[kept], kind="stable")]
        mine = owner[kept]
        first = np.searchsorted(mine, mine)
        place = following[mine] + np.arange(len(mine)) - first
        stored["item"][place], stored["value"][place], stored["row"][place] = thing[kept], value[kept], number[kept]
        following += np.bincount(mine, minlength=count + 1)
    made = _ordered(coded, offsets, stored, raw_ids, aside)
    listed = int((np.diff(made.offsets) > 0).sum())
    log.info(
        "%s: %s scored rows (%s more are minus infinity), %s of users and items of the dataset, %s kept; %s users, "
        "%.0f items a user on average",
        source, f"{coded.rows:,}", f"{coded.unscored:,}", f"{known:,}", f"{len(made.items):,}", f"{listed:,}",
        len(made.items) / max(listed, 1),
    )  # fmt: skip
    return made


def _ordered(
    coded: _Coded,
    offsets: Longs,
    stored: dict[str, np.ndarray],
    raw_ids: tuple[list[str], list[str]],
    aside: ItemsLog,
) -> GivenScores:
    """Each user's items best first, those of equal scores by id, of repeated ones the first row."""
    sizes = np.zeros(len(offsets), np.int64)
    kept_items = [np.zeros(0, np.int32)]
    kept_levels: list[npt.NDArray[Any]] = [np.zeros(0, np.int16)]
    for start, end in _user_blocks(offsets):
        rows = slice(int(offsets[start]), int(offsets[end]))
        owner = np.repeat(np.arange(start, end), np.diff(offsets[start : end + 1]))
        item, value, number = (np.asarray(stored[name][rows]) for name in ("item", "value", "row"))
        order = np.lexsort((np.arange(len(item)), item, owner))
        twice = order[1:][(item[order][1:] == item[order][:-1]) & (owner[order][1:] == owner[order][:-1])]
        if len(twice):
            shown = _named(raw_ids, owner[twice], item[twice], value[twice], coded.ranks)
            _set_aside(aside, len(twice), coded.origin(number[twice]), "user and item stand there already", shown)
            once = np.setdiff1d(np.arange(len(item)), twice)
            owner, item, value = owner[once], item[once], value[once]
        order = np.lexsort((item, -value, owner))
        owner, item, value = owner[order], item[order], value[order]
        sizes[start + 1 : end + 1] = np.bincount(owner - start, minlength=end - start)
        levels = _levels(owner, value)
        fits = int(levels.max(initial=0)) <= np.iinfo(np.int16).max
        kept_items.append(item)
        kept_levels.append(levels.astype(np.int16) if fits else levels)
    return GivenScores(np.cumsum(sizes), np.concatenate(kept_items), np.concatenate(kept_levels))


def _user_blocks(offsets: Longs) -> Iterator[tuple[int, int]]:
    """Ranges of users with about a block of rows."""
    start, last = 0, len(offsets) - 1
    while start < last:
        end = int(np.searchsorted(offsets, offsets[start] + BLOCK_ROWS, "right")) - 1
        end = min(max(end, start + 1), last)
        yield start, end
        start = end


def _levels(owner: Longs, value: npt.NDArray[np.float64]) -> Ints:
    """How many different values of the same owner lie at or below each; rows are sorted by owner, the best first."""
    if not len(owner):
        return np.zeros(0, np.int32)
    begins = np.concatenate([[True], owner[1:] != owner[:-1]])
    step = np.concatenate([[True], begins[1:] | (value[1:] != value[:-1])])
    depth = np.cumsum(step)  # different values so far, over all owners
    ends = np.flatnonzero(np.concatenate([begins[1:], [True]]))
    last = np.repeat(depth[ends], np.diff(np.concatenate([[-1], ends])))
    return np.asarray(last - depth + 1, np.int32)
