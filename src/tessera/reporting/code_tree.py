"""The tree of codes: which items share which codes, level by level, as data for the page."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tessera.artifacts.codes import SemanticIds
from tessera.reporting.explorer import ELSEWHERE, THUMBNAIL, short_id, short_title
from tessera.reporting.samples import Catalogue

Ints = NDArray[np.int64]


def chosen_rows(rows: Ints, most: int, seed: int = 0) -> list[int]:
    """Places of rows (n, levels) that a tree brings onto the page: all, or everything below some random first codes.

    Whole branches say more than a few items of each: what lies near in the tree is near on the page. The last branch
    is cut where it is too large.
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    order = np.lexsort(rows.T[::-1])
    chosen: list[int] = []
    for first in np.random.default_rng(seed).permutation(np.unique(rows[:, 0])):
        chosen += order[rows[order, 0] == first].tolist()
        if len(chosen) >= most:
            break
    return sorted(chosen[:most])


def tree_data(
    catalogue: Catalogue, recipes: Mapping[str, SemanticIds], most: int, elsewhere: Container[int] = ()
) -> str:
    """JSON for the page's script: `trees` and `items`; empty where there is nothing to show.

    `items` holds [title, raw id, training interactions, picture], where the picture is a data URI, null, or 0 where
    the dataset's other explorer holds it. A tree has its `recipe` and `part`, the `sizes` of its levels, whether they
    are `ordered`, how many `items` of the catalogue have codes, and its `root`: a node is [items below it, children
    that are not on this page, children], where a child is [code, node] and below the last level a place in `items`.

    Args:
        recipes: name -> codes of the catalogue's items.
        most: items on the page; of larger catalogues every tree chooses its share, and shows what others chose too.
        elsewhere: items whose pictures are on the page already.
    """
    parts = [(name, ids, number) for name, ids in recipes.items() for number in range(len(ids.parts))]
    if not parts or not most:
        return ""
    chosen: set[int] = set()
    for _, ids, number in parts:
        items, rows = _sorted(ids, number)
        share = most if len(items) <= most else max(1, most // len(parts))
        chosen.update(items[chosen_rows(rows, share)].tolist())
    place = {item: number for number, item in enumerate(sorted(chosen))}
    trees = []
    for name, ids, number in parts:
        part = ids.parts[number]
        items, rows = _sorted(ids, number)
        shown = np.isin(items, list(place))
        trees.append(
            {
                "recipe": name,
                "part": part.name,
                "sizes": part.sizes[: part.meaningful],
                "ordered": part.ordered,
                "items": len(items),
                "root": _node(rows, items, shown, 0, place),
            }
        )
    data = {"trees": trees, "items": _items(catalogue, place, elsewhere), "catalogue": catalogue.table.num_rows}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _sorted(ids: SemanticIds, number: int) -> tuple[Ints, Ints]:
    """(n,) items of a part sorted by their codes, then by id, and (n, levels) the codes that mean something."""
    items = np.flatnonzero(ids.present(number))
    rows = ids.of(number)[items, : ids.parts[number].meaningful]
    order = np.lexsort((items, *rows.T[::-1]))
    return items[order], rows[order]


def _node(rows: Ints, items: Ints, shown: NDArray[np.bool_], level: int, place: Mapping[int, int]) -> list[Any]:
    """A node of sorted rows: items below it, how many children are left out, and the others."""
    if level == rows.shape[1]:
        kept = [place[item] for item in items[shown].tolist()]
        return [len(items), len(items) - len(kept), kept]
    groups = list(_runs(rows[:, level]))
    kept_groups = [group for group in groups if shown[group].any()]
    children: list[list[Any]] = [
        [int(rows[group.start, level]), _node(rows[group], items[group], shown[group], level + 1, place)]
        for group in kept_groups
    ]
    children.sort(key=_fullest_first)
    return [len(items), len(groups) - len(kept_groups), children]


def _fullest_first(child: list[Any]) -> tuple[int, int]:
    code, node = child
    return -node[0], code


def _runs(column: Ints) -> Iterator[slice]:
    """Where equal values of a sorted column begin and end."""
    edges = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), len(column)]
    return (slice(start, end) for start, end in pairwise(edges) if end > start)


def _items(catalogue: Catalogue, place: Mapping[int, int], elsewhere: Container[int]) -> list[list[Any]]:
    pictures = catalogue.pictures.sized(THUMBNAIL)
    rows = catalogue.table.select(["item", "raw_id", "title", "image"]).to_pylist()
    known = {row["item"]: row for row in rows if row["item"] in place}
    return [
        [
            short_title(known[item]["title"]),
            short_id(known[item]["raw_id"]),
            int(catalogue.counts[item]),
            ELSEWHERE if item in elsewhere else pictures.uri(known[item]["image"]),
        ]
        for item in place
    ]
