"""MovieLens (GroupLens): 100K (`u.data`, `u.item` in latin-1), 1M and 10M (`::`), 20M and latest (CSV).

Harper and Konstan, The MovieLens Datasets: History and Context, TiiS 2015.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from tessera.artifacts.logs import log as log_line
from tessera.data.blocks import lines
from tessera.data.files import find
from tessera.data.log import Item, RawLog
from tessera.data.sources.text_rows import add_rows, field, text_rows
from tessera.settings.datasets import MovieLensSource

# ratings file -> (separator, names or None for a header line, file of the films)
_LAYOUTS: dict[str, tuple[str, list[str] | None, str]] = {
    "u.data": ("\t", ["user", "item", "rating", "timestamp"], "u.item"),
    "ratings.dat": ("::", ["user", "item", "rating", "timestamp"], "movies.dat"),
    "ratings.csv": (",", None, "movies.csv"),
}
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def _ratings(folder: Path) -> Path:
    for name in _LAYOUTS:
        if (folder / name).is_file():
            return folder / name
    names = sorted(entry.name for entry in folder.iterdir())[:12] if folder.is_dir() else []
    raise FileNotFoundError(
        f"{folder}: no MovieLens ratings; expected a folder with one of {', '.join(_LAYOUTS)}"
        + (f" (holds: {', '.join(names)})" if names else "")
    )


def read_interactions(settings: MovieLensSource, log: RawLog) -> None:
    """Hand the ratings over."""
    path = _ratings(find(settings.path))
    separator, names, _ = _LAYOUTS[path.name]
    for _, frame in text_rows(path, separator, log, names):
        add_rows(log, path, frame, user=field(0), item=field(1), rating=field(2), timestamp=field(3))


def read_items(settings: MovieLensSource, log: RawLog) -> Iterator[Item]:
    """Title, genres and year of the films."""
    ratings = _ratings(find(settings.path))
    path = ratings.parent / _LAYOUTS[ratings.name][2]
    if path.is_file():
        yield from films(path)
    else:
        log_line.warning("WARNING: %s: no %s beside %s; films have no titles", path.parent, path.name, ratings.name)


def films(path: Path) -> Iterator[Item]:
    """The films of `u.item`, `movies.dat` or `movies.csv`."""
    rows = {"u.item": _films_100k, "movies.dat": _films_dat, "movies.csv": _films_csv}[path.name](path)
    for raw_id, title, genres in rows:
        attributes = {"genres": ", ".join(genres)} if genres else {}
        year = _YEAR.search(title)
        if year:
            attributes["year"] = year[1]
        yield Item(raw_id, title or None, attributes)


def _films_100k(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for _, line in lines(path, "latin-1"):
        fields = line.split("|")
        if len(fields) >= 5 + len(_GENRES_100K):
            flags = fields[5 : 5 + len(_GENRES_100K)]
            yield fields[0], fields[1], [g for g, flag in zip(_GENRES_100K, flags, strict=True) if flag == "1"]


def _films_dat(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    # 1M is latin-1, 10M is UTF-8: what decodes as UTF-8 is UTF-8
    try:
        path.read_bytes().decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    for _, line in lines(path, encoding):
        fields = line.split("::")
        if len(fields) == 3:
            yield fields[0], fields[1], fields[2].split("|")


def _films_csv(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            genres = [genre for genre in (row.get("genres") or "").split("|") if not genre.startswith("(no ")]
            yield str(row.get("movieId")), row.get("title") or "", genres
