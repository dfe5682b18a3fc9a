"""Test users under two systems side by side: their history, the target, both lists, as data for the page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tessera.evaluation import metrics
from tessera.evaluation.spread import spread
from tessera.reporting.explorer import ELSEWHERE, THUMBNAIL, short_id, short_title
from tessera.reporting.ranking import RankingTable
from tessera.reporting.ranking_runs import RankingRun, counted
from tessera.reporting.runs import Array, Entry, label
from tessera.reporting.samples import Catalogue, histories, raw_ids
from tessera.settings.evaluation import Evaluation

HISTORY = 10
"""Last items of a history that are shown."""
LISTED = 20
"""Most items of a list that are shown, where the metric looks so far."""
PICTURES = 500
"""Most pictures that the page holds for these users alone, of the items that are shown most often."""

Row = Entry[RankingRun]
_NOT_JUDGED = -1


@dataclass(frozen=True)
class _Judged:
    """The first seed of a system, aligned to the users of the best one."""

    ranks: Array
    """(users,) as the metrics take them: infinite where the target is a miss, NaN where the user was not judged."""
    lists: dict[int, list[int]]
    """User on the page -> recommended items, best first."""


def side_by_side(
    catalogue: Catalogue, users: Path, table: RankingTable, main: str, most: int, elsewhere: Container[int] = ()
) -> str:
    """JSON for the page's script; empty where there are not two systems, or no user is wanted.

    `systems` are names, the best first; `first` and `second` the places of those that are shown at the beginning: the
    best and the baseline. A hit is a target within the first `cutoff`. `items` holds [title, raw id, training
    interactions, picture], the picture as in the tree of codes. A user is [raw id, items in the history, places of the
    last ones, place of the target, rank under each system, places of each one's list]; the rank is null where the
    target is a miss whatever the cut-off, and -1 where the system did not judge the user. Of all test users, `both`
    counts those that two systems hit, `alone` those that the first of two hits and the second misses, `judged` those
    that both judged.

    Args:
        users: users.parquet.
        main: the metric that decides; its cut-off is that of hits.
        most: users on the page; of more, some are spread evenly over the rank of the target under the best system.
        elsewhere: items whose pictures are on the page already.
    """
    shown = table.ranked(main)
    if not most or not table.competitors or len(shown) < 2:
        return ""
    cutoff = _cutoff(main, table.evaluation)
    best = counted(shown[0].runs[0], table.evaluation)
    chosen = _chosen(best, most)
    by_system = [_judged(entry, table.evaluation, best[0], chosen, min(cutoff, LISTED)) for entry in shown]
    ranks = np.stack([one.ranks for one in by_system], axis=1)
    known: NDArray[np.int32] = best[0].column("user").to_numpy()
    targets = dict(zip(known.tolist(), best[0].column("item").to_pylist(), strict=True))
    past = histories(catalogue, chosen)
    listed = {user: [one.lists.get(user, []) for one in by_system] for user in chosen}
    often: Counter[int] = Counter()
    for user in chosen:
        often.update([*past[user][-HISTORY:], targets[user], *(item for items in listed[user] for item in items)])
    place = {item: number for number, item in enumerate(sorted(often))}
    row = {user: number for number, user in enumerate(known.tolist())}
    raw = raw_ids(users, chosen)
    people = [
        [
            short_id(raw[user]),
            len(past[user]),
            [place[item] for item in past[user][-HISTORY:]],
            place[targets[user]],
            [_rank(value) for value in ranks[row[user]].tolist()],
            [[place[item] for item in items] for items in listed[user]],
        ]
        for user in chosen
    ]
    base = next((number for number, entry in enumerate(shown) if number and table.is_baseline(entry)), 1)
    data = {
        "cutoff": cutoff,
        "systems": [label(entry) for entry in shown],
        "first": 0,
        "second": base,
        "items": _items(catalogue, place, often, elsewhere),
        "users": people,
        "several_seeds": any(len(entry.runs) > 1 for entry in shown),
        **_counts(ranks, cutoff),
    }
    # inside a script element only the sign that could end it matters
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _cutoff(main: str, settings: Evaluation) -> int:
    """The cut-off of a metric; of one without, that of the table's main columns."""
    number = main.partition("@")[2]
    return int(number) if number else 10 if 10 in settings.cutoffs else settings.cutoffs[-1]


def _chosen(best: tuple[pa.Table, Array], most: int) -> list[int]:
    """Users on the page, ascending."""
    users: NDArray[np.int32] = best[0].column("user").to_numpy()
    order = users[np.lexsort((users, best[1]))]
    return sorted(int(order[number]) for number in spread(len(order), most))


def _judged(entry: Row, settings: Evaluation, first: pa.Table, chosen: Sequence[int], length: int) -> _Judged:
    table, ranks = counted(entry.runs[0], settings, "recommended")
    users: NDArray[np.int32] = table.column("user").to_numpy()
    wanted: NDArray[np.int32] = first.column("user").to_numpy()
    aligned = np.full(len(wanted), np.nan)
    _, mine, theirs = np.intersect1d(users, wanted, assume_unique=True, return_indices=True)
    aligned[theirs] = ranks[mine]
    few = table.filter(pc.is_in(table.column("user"), pa.array(chosen, pa.int32())))
    rows = zip(few.column("user").to_pylist(), few.column("recommended").to_pylist(), strict=True)
    return _Judged(aligned, {user: items[:length] for user, items in rows})


def _rank(value: float) -> float | int | None:
    if math.isnan(value):
        return _NOT_JUDGED
    return None if math.isinf(value) else int(value) if value.is_integer() else value


def _counts(ranks: Array, cutoff: int) -> dict[str, Any]:
    """Of every pair of systems, over all test users that both judged: hits of both, of the first alone, and all."""
    judged = (~np.isnan(ranks)).astype(np.int64)
    hits = metrics.hit(ranks, cutoff).astype(np.int64)  # no comparison with NaN is true
    misses = judged - hits
    pairs = {"both": hits.T @ hits, "alone": hits.T @ misses, "judged": judged.T @ judged}
    return {name: counts.tolist() for name, counts in pairs.items()}


def _items(
    catalogue: Catalogue, place: Mapping[int, int], often: Counter[int], elsewhere: Container[int]
) -> list[list[Any]]:
    pictures = catalogue.pictures.sized(THUMBNAIL)
    few = catalogue.table.filter(pc.is_in(catalogue.table.column("item"), pa.array(place, pa.int32())))
    rows = {row["item"]: row for row in few.select(["item", "raw_id", "title", "image"]).to_pylist()}
    others = sorted((item for item in place if item not in elsewhere), key=lambda item: (-often[item], item))
    drawn = frozenset(others[:PICTURES])
    return [
        [
            short_title(rows[item]["title"]),
            short_id(rows[item]["raw_id"]),
            int(catalogue.counts[item]),
            ELSEWHERE if item in elsewhere else pictures.uri(rows[item]["image"]) if item in drawn else None,
        ]
        for item in place
    ]
