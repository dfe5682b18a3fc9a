"""The map of the items, as data for the page: where every table puts them, and what they can be coloured by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tessera.artifacts.shown import one_line
from tessera.artifacts.tables import describe, read_table
from tessera.evaluation.atlas import ATTRIBUTE, CODE
from tessera.evaluation.probes import drawn
from tessera.reporting.explorer import short_id, short_title
from tessera.reporting.representations import Files
from tessera.reporting.samples import Catalogue

MOST_POINTS = 2_000
"""Items on the page, a dataset."""
COLOURS = 8
"""Values of an attribute, and codes, that have a colour of their own; all others share one."""
SHADES = 5
"""Groups of popularity, of about as many items each."""
_WIDTH = 1_000
_VALUE = 60


def atlas_data(catalogue: Catalogue, atlas: Files, explored: Collection[int], most: int = MOST_POINTS) -> str:
    """JSON for the page's script: `items`, `tables`, `colours` and `catalogue`; empty where there is no map.

    `items` holds [title, raw id, training interactions]. A table has its `name`, the `method` of its map, `x` and
    `y` of every item (0 to 1000, -1 where it has no vector), and `colours` of its own, which are codes. A colouring has
    a `name`, `values`, the place in them `of` every item (their number for any other value, -1 for none), and tells
    whether they are `ordered`.

    Args:
        atlas: table -> its map (Parquet of kind `atlas`).
        explored: items whose pictures the page holds; these come first, then random ones by a hash of their raw ids.
    """
    if not atlas:
        return ""
    rows = {row["item"]: row for row in catalogue.table.select(["item", "raw_id", "title"]).to_pylist()}
    ids = list(rows)
    numbers, _ = drawn([rows[item]["raw_id"] for item in ids])
    order = sorted(
        zip(ids, numbers.tolist(), strict=True), key=lambda pair: (pair[0] not in explored, pair[1], pair[0])
    )
    chosen = sorted(item for item, _ in order[:most])
    maps = {name: read_table(path, "atlas") for name, path in atlas.items()}
    tables = [_table(name, maps[name], describe(path), chosen) for name, path in atlas.items()]
    attributes: dict[str, dict[int, str]] = {}
    for table in maps.values():
        for column in table.column_names:
            if column.startswith(ATTRIBUTE):
                attributes.setdefault(column.removeprefix(ATTRIBUTE), {}).update(_by_item(table, column))
    colours = [_shades([int(catalogue.counts[item]) for item in chosen])]
    colours += [_colouring(name, values, chosen) for name, values in attributes.items()]
    items = [
        [short_title(rows[item]["title"]), short_id(rows[item]["raw_id"]), int(catalogue.counts[item])]
        for item in chosen
    ]
    data = {"items": items, "tables": tables, "colours": colours, "catalogue": len(rows)}
    # inside a script element only the sign that could end it matters
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _by_item(table: pa.Table, column: str) -> dict[int, Any]:
    return dict(zip(table.column("item").to_pylist(), table.column(column).to_pylist(), strict=True))


def _table(name: str, table: pa.Table, about: dict[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    points = np.stack([table.column("x").to_numpy(), table.column("y").to_numpy()], 1).astype(np.float64)
    size = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    # the same scale in both directions: distances are what a map is looked at for
    middle = (points.max(0) + points.min(0)) / 2 if len(points) else 0.0
    scaled = np.rint(((points - middle) / (size or 1.0) + 0.5) * _WIDTH).astype(int).tolist()
    known = dict(zip(table.column("item").to_pylist(), scaled, strict=True))
    shown = [known.get(item, (-1, -1)) for item in chosen]
    codes = [column for column in table.column_names if column.startswith(CODE)]
    return {
        "name": name,
        "method": about["settings"]["method"],
        "x": [x for x, _ in shown],
        "y": [y for _, y in shown],
        "colours": [_colouring(column.removeprefix(CODE), _by_item(table, column), chosen) for column in codes],
    }


def _colouring(name: str, values: Mapping[int, str | None], chosen: Sequence[int]) -> dict[str, Any]:
    """Each item's place among the most frequent values."""
    counts = Counter(value for item in chosen if (value := values.get(item)) is not None)
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:COLOURS]
    place = {value: number for number, value in enumerate(frequent)}
    of = [-1 if (value := values.get(item)) is None else place.get(value, len(frequent)) for item in chosen]
    return {"name": name, "values": [one_line(value, _VALUE) for value in frequent], "of": of, "ordered": False}


def _shades(counts: Sequence[int]) -> dict[str, Any]:
    """Each item's place among groups of like popularity, the least popular first."""
    edges = (
        np.unique(np.quantile(counts, np.linspace(0, 1, SHADES + 1)[1:-1], method="lower")) if counts else np.zeros(0)
    )
    of = np.searchsorted(edges, counts)
    groups = [np.asarray(counts)[of == place] for place in range(len(edges) + 1)]
    shown = [place for place, group in enumerate(groups) if len(group)]
    values = [_span(int(groups[place].min()), int(groups[place].max())) for place in shown]
    number = {place: new for new, place in enumerate(shown)}
    return {"name": "popularity", "values": values, "of": [number[place] for place in of.tolist()], "ordered": True}


def _span(first: int, last: int) -> str:
    return f"{first:,} in train" if first == last else f"{first:,} to {last:,} in train"
