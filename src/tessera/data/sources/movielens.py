"""MovieLens (GroupLens): 100K (`u.data`, `u.item` in latin-1), 1M and 10M (`::`), 20M and latest (CSV).

Copies come with a header and without, and with their columns in another order: where there is a header, it says which
column is what. Harper and Konstan, The MovieLens Datasets: History and Context, TiiS 2015.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tessera.artifacts.logs import log as logger
from tessera.data.blocks import blocks, lines
from tessera.data.files import DataFileError, find
from tessera.data.log import Item, RawLog
from tessera.data.packed import unpacked
from tessera.data.sources.csv_rows import Header, csv_frames, csv_records, is_number, read_header
from tessera.data.sources.text_rows import add_rows, field, text_rows
from tessera.settings.base import did_you_mean
from tessera.settings.sources.movielens import MovieLensSource

# ratings file -> file of the films
_FILES = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv", "rating.csv": "movie.csv"}
_PACKED = ("", ".gz", ".bz2", ".xz", ".zip")
_ORDER = ["user", "item", "rating", "timestamp"]  # of a file without a header
# names in headers, in small letters and digits alone; the first that is there counts
_NAMES = {
    "user": ("userid", "user", "uid"),
    "item": ("movieid", "itemid", "filmid", "movie", "item", "film"),
    "rating": ("rating", "ratings", "stars", "score"),
    "timestamp": ("timestamp", "unixtimestamp", "time", "datetime", "date"),
}
_FILM_NAMES = {"item": (*_NAMES["item"], "id"), "title": ("title", "movietitle", "name"), "genres": ("genres", "genre")}
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_YEAR = re.compile(r"\((\d{4})\)\s*$")


class _Layout(NamedTuple):
    """How a file of ratings is written."""

    header: Header
    """Its names, made up where it has none (line 0)."""
    columns: dict[str, str]
    """user, item, rating, timestamp -> name."""


def _ratings(folder: Path) -> Path:
    for name in _FILES:
        if (path := _packed(folder, name)) is not None:
            return path
    names = sorted(entry.name for entry in folder.iterdir())[:12] if folder.is_dir() else []
    raise FileNotFoundError(
        f"{folder}: no MovieLens ratings; expected a folder with one of {', '.join(_FILES)}"
        + (f" (holds: {', '.join(names)})" if names else "")
    )


def _packed(folder: Path, name: str) -> Path | None:
    return next((path for end in _PACKED if (path := folder / f"{name}{end}").is_file()), None)


def _plain(path: Path) -> str:
    """The name of a file without what says how it is packed."""
    return path.name.removesuffix(path.suffix) if path.suffix in _PACKED else path.name


def read_interactions(settings: MovieLensSource, log: RawLog) -> None:
    """Hand the ratings over.

    Raises:
        DataFileError: the header names no user or no film.
    """
    path = _ratings(find(settings.path))
    header, columns = _layout(path, settings.encoding)
    for name in ("rating", "timestamp"):
        if name not in columns:
            logger.warning("%s: has no column of %ss: the rows are taken without", path, name)
    if header.separator != "::":
        for frame in csv_frames(path, columns, header, log, settings.encoding):
            log.add(frame, path)
        return
    expressions = {name: field(header.names.index(column)) for name, column in columns.items()}
    for _, frame in text_rows(path, "::", log, header.names, settings.encoding, header.line):
        add_rows(log, path, frame, **expressions)


def files(settings: MovieLensSource) -> list[Path]:
    """The ratings, and the films where they are beside them."""
    ratings = _ratings(find(settings.path))
    return [path for path in (ratings, _films_beside(ratings)) if path is not None]


def _films_beside(ratings: Path) -> Path | None:
    return _packed(ratings.parent, _FILES[_plain(ratings)])


def check(settings: MovieLensSource) -> None:
    """Read the first line of the ratings."""
    _layout(_ratings(find(settings.path)), settings.encoding)


def _layout(path: Path, encoding: str | None) -> _Layout:
    header = _first_line(path, encoding)
    if any(map(is_number, header.names)):
        return _Layout(Header(_ORDER, header.separator, 0), {name: name for name in _ORDER})
    columns = _by_name(header.names, _NAMES)
    for name, expected in (("user", "userId"), ("item", "movieId")):
        if name not in columns:
            hint = did_you_mean(expected, header.names)
            raise DataFileError(
                f"{path}: line {header.line}: the header {header.names} has no column {expected!r}{hint}; "
                "expected userId, movieId, rating, timestamp in any order, or rows in this order and no header"
            )
    return _Layout(header, columns)


def _first_line(path: Path, encoding: str | None) -> Header:
    name = _plain(path)
    if name != "ratings.dat":
        return read_header(path, "\t" if name == "u.data" else None, encoding)
    for block in blocks(path, 1 << 16, encoding):
        for number, raw in enumerate(block.data.split(b"\n"), block.first):
            if raw.strip():
                return Header(raw.decode("utf-8", "replace").strip().split("::"), "::", number)
    raise DataFileError(f"{path}: is empty")


def _by_name(header: list[str], known: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Which name of a header is what; a name is written with or without capitals, blanks and underscores."""
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header]
    return {key: header[plain.index(name)] for key, names in known.items() for name in reversed(names) if name in plain}


def read_items(settings: MovieLensSource, log: RawLog) -> Iterator[Item]:
    """Title, genres and year of the films."""
    ratings = _ratings(find(settings.path))
    path = _films_beside(ratings)
    if path is not None:
        yield from films(path, log, settings.encoding)
    else:
        name = _FILES[_plain(ratings)]
        logger.warning("%s: no %s beside %s; films have no titles", ratings.parent, name, ratings.name)


def film_reader(path: Path) -> _Reader:
    """What reads a file of films, by its name.

    Raises:
        DataFileError: the file is named otherwise.
    """
    readers: dict[str, _Reader] = {".item": _films_100k, ".dat": _films_dat, ".csv": _films_csv}
    suffix = Path(_plain(path)).suffix
    if suffix not in readers:
        raise DataFileError(f"{path}: expected MovieLens' films: u.item, movies.dat or movies.csv")
    return readers[suffix]


def films(path: Path, log: RawLog, encoding: str | None = None) -> Iterator[Item]:
    """The films of `u.item`, `movies.dat` or `movies.csv`; rows that are none are rejected.

    Raises:
        DataFileError: the file is named otherwise, or its header names no film or no title.
    """
    for raw_id, title, genres in film_reader(path)(path, log, encoding):
        log.described += 1
        attributes = {"genres": ", ".join(genres)} if genres else {}
        year = _YEAR.search(title)
        if year:
            attributes["year"] = year[1]
        yield Item(raw_id, title or None, attributes)


_Films = Iterator[tuple[str, str, list[str]]]
_Reader = Callable[[Path, RawLog, str | None], _Films]


def _films_100k(path: Path, log: RawLog, encoding: str | None) -> _Films:
    width = 5 + len(_GENRES_100K)
    for number, line in lines(path, encoding or _utf8_or_latin1(path)):
        fields = line.split("|")
        if len(fields) >= width:
            yield (
                fields[0],
                fields[1],
                [g for g, flag in zip(_GENRES_100K, fields[5:width], strict=True) if flag == "1"],
            )
        elif line.strip():
            log.reject(path, number, f"{len(fields)} fields, expected {width}", line)


def _films_dat(path: Path, log: RawLog, encoding: str | None) -> _Films:
    for number, line in lines(path, encoding or _utf8_or_latin1(path)):
        fields = line.split("::")
        if number == 1 and "title" in _by_name(fields, _FILM_NAMES):
            continue
        if len(fields) == 3:
            yield fields[0], fields[1], fields[2].split("|")
        elif line.strip():
            log.reject(path, number, f"{len(fields)} fields, expected 3", line)


def _utf8_or_latin1(path: Path) -> str:
    """100K and 1M are latin-1, 10M is UTF-8: what decodes as UTF-8 is UTF-8."""
    with unpacked(path) as file:
        try:
            file.read().decode()
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"


def _films_csv(path: Path, log: RawLog, encoding: str | None) -> _Films:
    header = read_header(path, None, encoding)
    if any(map(is_number, header.names)):
        header = Header(["item", "title", "genres"][: len(header.names)], header.separator, 0)
    columns = _by_name(header.names, _FILM_NAMES)
    for name in ("item", "title"):
        if name not in columns:
            expected = "movieId" if name == "item" else "title"
            raise DataFileError(
                f"{path}: line {header.line}: the header {header.names} has no column {expected!r}; "
                "expected movieId, title, genres in any order, or rows in this order and no header"
            )
    for _, row in csv_records(path, columns, [columns["item"]], header, log, encoding):
        genres = row[columns["genres"]].split("|") if "genres" in columns else []
        yield row[columns["item"]].strip(), row[columns["title"]], [g for g in genres if g and not g.startswith("(no ")]
