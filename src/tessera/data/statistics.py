"""What `stats.json` says of a dataset: counts, histograms, shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.tables import PAIRS
from tessera.data.dataset import SPLITS, TEST, TRAIN, Longs
from tessera.data.rows import Mask, Rows
from tessera.data.splits import Codes

CURVE_POINTS = 1000


def describe_rows(rows: Rows, split: Codes, items: int | None = None) -> dict[str, Any]:
    """Statistics of the interactions that are kept.

    Args:
        rows: whose `users` are codes without gaps, and whose `items` are below `items`.
        split: the part of each.
        items: size of the catalogue; None where every item of it has an interaction.
    """
    counts = rows.counts() | ({} if items is None else {"items": items})
    by_split = np.bincount(split, minlength=len(SPLITS))
    lengths = np.bincount(rows.users)
    train = np.bincount(rows.items[split == TRAIN], minlength=counts["items"])
    targets = rows.items[split == TEST]
    return {
        "counts": {**counts, **{name: int(n) for name, n in zip(SPLITS, by_split, strict=True)}},
        "mean_length": float(lengths.mean()),
        "median_length": float(np.median(lengths)),
        "max_length": int(lengths.max()),
        "density": len(rows) / (counts["users"] * counts["items"]),
        "lengths": {str(length): int(n) for length, n in enumerate(np.bincount(lengths)) if n},
        "popularity": popularity(train),
        "tie_share": tie_share(rows),
        "target_tie_share": _target_ties(rows, split),
        "cold_items": int((train == 0).sum()),
        "cold_test_targets": int((train[targets] == 0).sum()),
        "cold_test_share": float((train[targets] == 0).mean()) if len(targets) else 0.0,
        "repeat_share": repeat_share(rows),
        **_times(rows),
    }


def _times(rows: Rows) -> dict[str, Any]:
    """First and last time in unix seconds, where the times are dates, and the unit they are kept in."""
    if rows.times is None:
        return {"period": None, "time_unit": None}
    ends = [rows.clock.seconds(int(rows.times.min())), rows.clock.seconds(int(rows.times.max()))]
    return {"period": ends if rows.clock.dated else None, "time_unit": rows.clock.unit}


def repeat_share(rows: Rows) -> float:
    """Share of the interactions with an item that the user has met before."""
    pairs = np.sort(rows.users * (np.int64(rows.items.max()) + 1) + rows.items)
    return float((np.diff(pairs) == 0).sum() / len(rows))


def popularity(counts: Longs) -> list[int]:
    """Training interactions an item, most popular first; of larger catalogues at evenly spaced ranks."""
    ranked = np.sort(counts)[::-1]
    indices = np.linspace(0, len(ranked) - 1, min(len(ranked), CURVE_POINTS)).round().astype(np.int64)
    return [int(count) for count in ranked[indices]]


def _ties(rows: Rows) -> Mask:
    """Rows that share user and time with a neighbour: their order is that of the source."""
    assert rows.times is not None
    same = (np.diff(rows.users) == 0) & (np.diff(rows.times) == 0)
    return np.asarray(np.append(same, False) | np.append(False, same))


def tie_share(rows: Rows) -> float | None:
    """Share of the interactions with another one of the same user at the same time; None without times."""
    return None if rows.times is None else float(_ties(rows).mean())


def _target_ties(rows: Rows, split: Codes) -> float | None:
    if rows.times is None or not (split == TEST).any():
        return None
    return float(_ties(rows)[split == TEST].mean())


def describe_items(items: pa.Table) -> dict[str, Any]:
    """Share of the items with a title, with any text, with a picture; and the title that most of them share, if any."""
    count = max(items.num_rows, 1)
    described = pc.greater(pc.list_value_length(items.column("attributes").combine_chunks().cast(PAIRS)), 0)
    title = pc.is_valid(items.column("title"))
    text = pc.or_(title, pc.fill_null(described, False))
    shares = {"title_share": title, "text_share": text, "image_share": pc.is_valid(items.column("image"))}
    description: dict[str, Any] = {name: (pc.sum(column).as_py() or 0) / count for name, column in shares.items()}
    return description | {"common_title": common_title(items.column("title"))}


def common_title(titles: pa.ChunkedArray) -> dict[str, Any] | None:
    """The title that stands most often, and the share of all items that have it; None where no title stands twice."""
    counts = pc.value_counts(titles.drop_null())
    most = int(pc.max(counts.field("counts")).as_py() or 0)
    if most < 2:
        return None
    place = pc.index(counts.field("counts"), most).as_py()
    return {"title": counts.field("values")[place].as_py(), "items": most, "share": most / len(titles)}
