"""The explorer of item tables: an item's nearest neighbours under every table, side by side, as data for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import ArtifactError
from tessera.reporting.samples import Catalogue

THUMBNAIL = 64
ELSEWHERE = 0
"""Stands for a picture that the explorer of item tables already holds."""
_TITLE = 110
# one item in so many is where the way begins
_SPREAD = 150

Neighbours = dict[int, list[tuple[int, float]]]


def read_neighbours(diagnostics: Mapping[str, Any], path: object) -> Neighbours:
    """item -> its nearest neighbours and their cosines, of a table's diagnostics.

    Raises:
        ArtifactError: they are not in the expected form.
    """
    try:
        return {
            int(item): [(int(near), float(cosine)) for near, cosine in rows]
            for item, rows in diagnostics["neighbours"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError(f"{path}: 'neighbours' is no map of items to pairs of item and cosine") from None


def chosen_items(ids: Sequence[int], tables: Mapping[str, Neighbours], most: int, seed: int = 0) -> list[int]:
    """Which items the explorer holds: all, or some random ones, their neighbours, the neighbours of those, and so on.

    An explorer of random items alone would hold hardly any two that are near.
    """
    if len(ids) <= most:
        return list(ids)
    waiting = iter(np.random.default_rng(seed).permutation(np.asarray(ids)).tolist())
    order = [next(waiting) for _ in range(-(-most // _SPREAD))]
    chosen = set(order)
    expanded = 0
    while len(order) < most:
        if expanded < len(order):
            item = order[expanded]
            expanded += 1
            group = [near for table in tables.values() for near, _ in table.get(item, [])]
        else:
            group = [next(waiting)]
        for member in group:
            if member not in chosen and len(order) < most:
                chosen.add(member)
                order.append(member)
    return sorted(order)


def short_title(title: str | None) -> str:
    """A title in one line, of bounded length."""
    return one_line(title or "", _TITLE)


def short_id(raw_id: str) -> str:
    """A raw id, as it may be shown."""
    return one_line(raw_id, _TITLE)


def explored_items(catalogue: Catalogue, tables: Mapping[str, Neighbours], most: int) -> list[int]:
    """Items that the explorer of these tables holds."""
    known: list[int] = catalogue.table.column("item").to_pylist()
    return chosen_items(known, tables, most) if tables and most else []


def explorer_data(catalogue: Catalogue, tables: Mapping[str, Neighbours], most: int) -> str:
    """JSON for the page's script: `tables`, `items` and `near`; empty where there is nothing to explore.

    `items` holds [title, raw id, training interactions, picture or null]; `near` for every table and item a list of
    [place in `items`, cosine] and how many neighbours are not among the items, or null where the table has no vector.
    """
    chosen = explored_items(catalogue, tables, most)
    if not chosen:
        return ""
    place = {item: number for number, item in enumerate(chosen)}
    pictures = catalogue.pictures.sized(THUMBNAIL)
    rows = {row["item"]: row for row in catalogue.table.select(["item", "raw_id", "title", "image"]).to_pylist()}
    items = [
        [
            short_title(rows[item]["title"]),
            short_id(rows[item]["raw_id"]),
            int(catalogue.counts[item]),
            pictures.uri(rows[item]["image"]),
        ]
        for item in chosen
    ]
    near = [[_near(table.get(item), place) for item in chosen] for table in tables.values()]
    data = {"tables": list(tables), "items": items, "near": near, "catalogue": catalogue.table.num_rows}
    # inside a script element only the sign that could end it matters
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _near(neighbours: list[tuple[int, float]] | None, place: Mapping[int, int]) -> list[Any] | None:
    if neighbours is None:
        return None
    shown = [[place[item], round(cosine, 3)] for item, cosine in neighbours if item in place]
    return [shown, len(neighbours) - len(shown)]
