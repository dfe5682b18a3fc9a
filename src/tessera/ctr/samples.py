"""Samples: which item was shown to whom and whether it was clicked, each with the place where its history ends.

Histories are never copied: `items.npy` and `times.npy` hold every event of every user in time order, are mapped into
memory, and a sample points at the event where its own past ends. Events at the very moment of an impression are not
its past: they are not strictly earlier, and one of them may be the impression's own click.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tessera.artifacts.files import atomic, file_digest, write_json
from tessera.artifacts.logs import log
from tessera.artifacts.tables import ArtifactError, check_ids, read_table, write_table
from tessera.data.clock import read_clock
from tessera.settings.base import did_you_mean
from tessera.settings.ctr import CTRSplit, ImpressionSamples, PositiveSamples, RatingSamples, Samples

Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PARTS = ("train", "valid", "test")
"""Codes 0..2 of a sample's part."""
EVENTS = "events"
"""Unit of moments that are places in a user's log."""
PAST = -1
"""Part of rows before the first training impression: events of histories, and no samples."""
_ROUNDS = 20


class SampleError(ValueError):
    """A log from which the wanted samples cannot be made."""


def make_samples(settings: Samples, data: Path, folder: Path) -> dict[str, Any]:
    """Write `offsets.npy`, `items.npy`, `times.npy`, `samples.parquet`, `catalogue.parquet` and `samples.json`.

    Args:
        settings: what is a click, what is history, and where the cuts are.
        data: folder of the prepared dataset.
        folder: where the files go.
    Raises:
        SampleError: the log lacks times or ratings that the settings need, or a part is left without samples.
    """
    path = data / "interactions.parquet"
    counts = {name: read_table(data / f"{name}s.parquet", f"{name}s", [name]).num_rows for name in ("user", "item")}
    table = read_table(path, "interactions", ["user", "item", "timestamp", "position", "rating"])
    for name, count in counts.items():
        check_ids(path, table, name, count)
    table = table.take(pc.sort_indices(table, [("user", "ascending"), ("position", "ascending")]))
    users, items = (table.column(name).to_numpy().astype(np.int64) for name in ("user", "item"))
    times = _moments(path, table, users, settings.split)
    clicked, event = _labels(path, table, settings)
    if not event.any():
        raise SampleError(f"{path}: {_no_event(table, settings)}")

    before = np.concatenate([[0], np.cumsum(event)])
    ends = before[_tie_starts(users, times)]
    offsets = before[np.searchsorted(users, np.arange(counts["user"] + 2))]
    parts = _parts(settings.split, users, times, event, ends, offsets)
    if isinstance(settings, ImpressionSamples) and settings.split.by == "time":
        parts = _from_the_first_refusal(path, parts, times, clicked)
    trained = event & (parts <= 0)
    popularity = np.bincount(items[trained], minlength=counts["item"] + 1)
    categories, names = read_categories(data / "items.parquet", settings.category)
    if isinstance(settings, PositiveSamples) and settings.distribution == "category" and not names:
        raise SampleError(
            f"{data / 'items.parquet'}: samples.distribution category draws from the click's category, and no item has "
            f"the attribute {settings.category!r} (samples.category)"
        )

    shown = np.flatnonzero((parts != PAST) & (clicked if isinstance(settings, PositiveSamples) else True))
    if settings.per_user is not None:
        shown = _latest(shown, users, parts, settings.per_user)
    rows = {
        "user": users[shown], "item": items[shown], "label": clicked[shown].astype(np.int8), "end": ends[shown],
        "timestamp": times[shown], "part": parts[shown],
    }  # fmt: skip
    if isinstance(settings, PositiveSamples):
        rows = _with_negatives(rows, settings, users, items, parts, popularity, categories)
    met = popularity > 0
    met[rows["item"][rows["part"] == 0]] = True
    missing = [part for code, part in enumerate(PARTS) if not (rows["part"] == code).any()]
    if missing:
        raise SampleError(
            f"{path}: no sample is left to {' and '.join(missing)}; "
            f"samples.split cuts at {settings.split.model_dump(mode='json')}"
        )
    _check_classes(path, rows, settings, table)
    made_by = settings.model_dump(mode="json")
    inputs = {"interactions": file_digest(path), "items": file_digest(data / "items.parquet")}
    _write_array(folder / "offsets.npy", offsets)
    _write_array(folder / "items.npy", items[event].astype(np.int32))
    _write_array(folder / "times.npy", times[event])
    part = pa.DictionaryArray.from_arrays(pa.array(rows.pop("part"), pa.int8()), list(PARTS)).cast(pa.string())
    clock = read_clock(path).described() if settings.split.by == "time" else {"time_unit": EVENTS}
    write_table(folder / "samples.parquet", pa.table({**rows, "split": part}), "ctr_samples", made_by, inputs, **clock)
    catalogue = pa.table(
        {
            "item": np.arange(1, counts["item"] + 1),
            "category": categories[1:],
            "events": popularity[1:],
            "met": met[1:],
        }
    )
    write_table(folder / "catalogue.parquet", catalogue, "ctr_catalogue", made_by, inputs, categories=names)
    description = _describe(rows, part, offsets, met, counts, settings.split)
    write_json(folder / "samples.json", description | {"categories": len(names)})
    log.info(
        "%s",
        ", ".join(f"{p['samples']:,} {name} ({p['clicks']:.1%} clicked)" for name, p in description["parts"].items()),
    )
    return description


def _moments(path: Path, table: pa.Table, users: Longs, split: CTRSplit) -> Longs:
    """(rows,) times as the log counts them, or, for a split by position, each row's place in its user's log."""
    if split.by == "position":
        return np.arange(len(users)) - np.searchsorted(users, users)
    column = table.column("timestamp")
    if column.null_count:
        raise SampleError(f"{path}: {column.null_count} rows have no time; use samples.split: {{by: position}}")
    times: Longs = column.to_numpy().astype(np.int64)
    back = np.flatnonzero((np.diff(times) < 0) & (np.diff(users) == 0))
    if len(back):
        raise ArtifactError(f"{path}: user {users[back[0]]} goes back in time after row {back[0]} of the sorted table")
    return times


def _labels(path: Path, table: pa.Table, settings: Samples) -> tuple[Bools, Bools]:
    """Which rows are clicks, and which are events of histories, (rows,) each."""
    everything = np.ones(table.num_rows, bool)
    if isinstance(settings, PositiveSamples):
        if shown := pc.sum(pc.equal(table.column("rating"), 0)).as_py():
            log.warning(
                "%s: %s of %s rows have a rating of 0 and count as clicks under samples.source positives; a log that "
                "says what was not clicked is read by samples: {source: impressions}",
                path, f"{shown:,}", f"{table.num_rows:,}",
            )  # fmt: skip
        return everything, everything
    column = table.column("rating")
    if column.null_count:
        raise SampleError(
            f"{path}: {column.null_count} of {table.num_rows} rows have no rating, so {settings.source} say no clicks; "
            "use samples: {source: positives}"
        )
    ratings = column.to_numpy()
    if isinstance(settings, ImpressionSamples):
        return ratings > 0, ratings > 0
    assert isinstance(settings, RatingSamples)
    high = ratings >= settings.threshold
    return high, (high if settings.history == "positives" else everything)


def _no_event(table: pa.Table, settings: Samples) -> str:
    """Why no row of a log is an event of a history."""
    if not table.num_rows:
        return "there is no row"
    highest = pc.max(table.column("rating")).as_py()
    if isinstance(settings, RatingSamples):
        return (
            f"no row is a click, so that no history has an event: the highest rating is {highest:g}, and "
            f"samples.threshold {settings.threshold:g}"
        )
    return (
        f"no row is a click, so that no history has an event: the highest rating is {highest:g}, and "
        f"samples.source {settings.source} takes one above 0 for a click"
    )


def _from_the_first_refusal(path: Path, parts: Longs, times: Longs, clicked: Bools) -> Longs:
    """(rows,) parts of which PAST lasts until the log first tells of what was not clicked.

    Before that its rows are clicks alone, whose labels are known without a look at them.
    """
    if clicked.all():
        return parts
    alone = (times < times[~clicked].min()) & (parts != PAST)
    if alone.any():
        log.info(
            "%s: %s impressions before the first that was not clicked are history and no samples",
            path, f"{np.count_nonzero(alone):,}",
        )  # fmt: skip
    parts = np.where(alone, PAST, parts)
    if alone.any() and not (parts == 0).any():
        raise SampleError(
            f"{path}: the log tells of clicks alone until after training ends: its first row that was not clicked is "
            f"later than the cut of samples.split; take a later cut (smaller valid and test), cleaning.since, or "
            "samples: {source: positives}"
        )
    return parts


def _check_classes(path: Path, rows: Mapping[str, npt.NDArray[Any]], settings: Samples, table: pa.Table) -> None:
    """Whether there are clicks and others: without both nothing is learned, and no AUC is defined.

    Raises:
        SampleError: training has one of them alone; the message says how the log is read, and how it may be meant.
    """
    alone = {}
    for code, part in enumerate(PARTS):
        labels = rows["label"][rows["part"] == code]
        if labels.min() == labels.max():
            alone[part] = f"all {len(labels):,} samples of {part} are {'clicks' if labels[0] else 'no clicks'}"
    if "train" not in alone:
        for said in alone.values():
            log.warning("%s: it has no AUC", said)
        return
    hint = "of a user who had all items nothing can be drawn that was not clicked"
    if isinstance(settings, ImpressionSamples):
        hint = (
            "a rating above 0 is a click, one of 0 an impression without one; a log of stars is read by "
            "samples: {source: ratings, threshold: 4}, a log of clicks alone by samples: {source: positives}"
        )
    elif isinstance(settings, RatingSamples):
        highest = pc.max(table.column("rating")).as_py()
        least = f"a rating of {settings.threshold:g} or more is a click"
        hint = f"{least}, and the highest is {highest:g}; lower the threshold"
    raise SampleError(f"{path}: {'; '.join(alone.values())}. Under samples.source {settings.source} {hint}")


def _tie_starts(users: Longs, times: Longs) -> Longs:
    """(rows,) the first row of the same user and moment: what is before it is strictly earlier."""
    first = np.ones(len(users), bool)
    first[1:] = (np.diff(users) != 0) | (np.diff(times) != 0)
    starts: Longs = np.flatnonzero(first)[np.cumsum(first) - 1]
    return starts


def _parts(split: CTRSplit, users: Longs, times: Longs, event: Bools, ends: Longs, offsets: Longs) -> Longs:
    """(rows,) PAST, or an index into PARTS; rows at the very moment of a cut fall after it."""
    # rounded: 1 - 0.2 - 0.2 is a little more than the 0.6 that it means
    shares = (split.past, round(1 - split.valid - split.test, 9), round(1 - split.test, 9))
    if split.by == "time":
        ordered = np.sort(times[event])
        moments = [ordered[min(len(ordered) - 1, round(share * len(ordered)))] for share in shares]
        return np.searchsorted(moments[1:], times, side="right") + np.where(
            (split.past > 0) & (times < moments[0]), PAST, 0
        )
    own = (offsets[users + 1] - offsets[users]).astype(np.float64)
    place = (ends - offsets[users]) / np.maximum(own, 1)
    parts = np.where(place < shares[0], PAST, (place >= shares[1]).astype(np.int64) + (place >= shares[2]))
    return np.asarray(parts, np.int64)


def _latest(shown: Longs, users: Longs, parts: Longs, most: int) -> Longs:
    """The latest rows of each user and part, in their order."""
    keys = users[shown] * 4 + parts[shown] + 1
    order = np.argsort(keys, kind="stable")
    groups = keys[order]
    after = np.searchsorted(groups, groups, side="right") - np.arange(len(groups))
    return np.sort(shown[order[after <= most]])


class _Had:
    """What each user had."""

    def __init__(self, users: Longs, items: Longs, count: int) -> None:
        self.base = count + 1
        self.keys = np.unique(users * self.base + items)

    def has(self, users: Longs, items: Longs) -> Bools:
        """(n,) whether each of users (n,) had the item beside it."""
        keys = users * self.base + items
        nearest = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.asarray(self.keys[nearest] == keys)

    def lacks(self, user: int, items: Longs) -> Longs:
        """Those of ascending items that a user has not had."""
        first, last = np.searchsorted(self.keys, [user * self.base, (user + 1) * self.base])
        return np.setdiff1d(items, self.keys[first:last] - user * self.base, assume_unique=True)

    def counts(self, users: Longs, kinds: Longs, categories: Longs) -> Longs:
        """(n,) how many items of the category beside it each of users (n,) had."""
        base = int(categories.max()) + 1
        keys, counts = np.unique(self.keys // self.base * base + categories[self.keys % self.base], return_counts=True)
        wanted = users * base + kinds
        nearest = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[nearest] == wanted, counts[nearest], 0)


class _Negatives:
    """Items that are drawn beside clicks, none of which the user had."""

    def __init__(self, settings: PositiveSamples, popularity: Longs, categories: Longs) -> None:
        self.count, self.categories = len(popularity) - 1, categories
        self.same = settings.distribution == "category"
        odds = popularity[1:].astype(np.float64)
        self.odds = odds / odds.sum() if settings.distribution == "popularity" and odds.sum() > 0 else None
        self.by_category = np.argsort(categories[1:], kind="stable") + 1
        self.starts = np.searchsorted(categories[self.by_category], np.arange(categories.max() + 2))
        self.elsewhere = 0
        """How many are of another category than the click, though its own was asked for."""

    def draw(self, users: Longs, clicked: Longs, had: _Had, generator: np.random.Generator) -> Longs:
        """(n,) an item for each of users (n,) who clicked (n,); 0 where a user had every item."""
        drawn, kinds = np.zeros(len(users), np.int64), self.categories[clicked]

        def redraw(waiting: Longs, propose: Callable[[Longs], Longs]) -> Longs:
            for _ in range(_ROUNDS):
                if not len(waiting):
                    break
                chosen = propose(waiting)
                fresh = ~had.has(users[waiting], chosen)
                drawn[waiting[fresh]] = chosen[fresh]
                waiting = waiting[~fresh]
            return waiting

        others = np.zeros(0, np.int64)
        waiting = redraw(np.arange(len(users)), lambda waiting: self._propose(kinds[waiting], generator))
        if self.same and len(waiting):
            sizes = self.starts[kinds[waiting] + 1] - self.starts[kinds[waiting]]
            some = had.counts(users[waiting], kinds[waiting], self.categories) < sizes
            for place in waiting[some]:  # few: users who had almost all of a category
                within = self.by_category[self.starts[kinds[place]] : self.starts[kinds[place] + 1]]
                drawn[place] = generator.choice(had.lacks(users[place], within))
            others = waiting[~some]
            waiting = redraw(others, lambda waiting: self._uniform(len(waiting), generator))
        # few: users who had almost everything of what is drawn from
        for of_user in np.split(waiting, np.flatnonzero(np.diff(users[waiting])) + 1) if len(waiting) else []:
            left = had.lacks(users[of_user[0]], np.arange(1, self.count + 1))
            odds = None
            if self.odds is not None and (mass := self.odds[left - 1].sum()) > 0:
                odds = self.odds[left - 1] / mass  # as those that were drawn with the others
            for place in of_user:
                drawn[place] = generator.choice(left, p=odds) if len(left) else 0
        self.elsewhere += int(np.count_nonzero(drawn[others]))
        return drawn

    def _propose(self, kinds: Longs, generator: np.random.Generator) -> Longs:
        if self.odds is not None:
            return generator.choice(self.count, len(kinds), p=self.odds) + 1
        if self.same:
            sizes = self.starts[kinds + 1] - self.starts[kinds]
            rows = self.starts[kinds] + (generator.random(len(kinds)) * sizes).astype(np.int64)
            return np.asarray(self.by_category[rows])
        return self._uniform(len(kinds), generator)

    def _uniform(self, size: int, generator: np.random.Generator) -> Longs:
        return generator.integers(1, self.count + 1, size)


def _with_negatives(
    rows: Mapping[str, np.ndarray],
    settings: PositiveSamples,
    users: Longs,
    items: Longs,
    parts: Longs,
    popularity: Longs,
    categories: Longs,
) -> dict[str, np.ndarray]:
    """Each click with its negatives behind it.

    What a user had is counted up to the end of the click's part: training knows nothing of what comes after.
    """
    negatives = _Negatives(settings, popularity, categories)
    drawn = np.zeros((len(rows["user"]), settings.negatives), np.int64)
    for part in range(len(PARTS)):
        generator = np.random.default_rng((settings.seed, part))
        had = _Had(users[parts <= part], items[parts <= part], negatives.count)
        mine = np.flatnonzero(rows["part"] == part)
        for column in range(settings.negatives):
            drawn[mine, column] = negatives.draw(rows["user"][mine], rows["item"][mine], had, generator)
    width = settings.negatives + 1
    repeated = {name: np.repeat(column, width) for name, column in rows.items()}
    repeated["item"] = np.concatenate([rows["item"][:, None], drawn], 1).ravel()
    repeated["label"] = np.tile(np.array([1] + [0] * settings.negatives, np.int8), len(drawn))
    kept = repeated["item"] > 0
    if not kept.all():
        log.info("%s negatives are missing: their users had every item", f"{int((~kept).sum()):,}")
    if negatives.elsewhere:
        log.info("%s negatives are of any category: their users had all of the click's", f"{negatives.elsewhere:,}")
    return {name: column[kept] for name, column in repeated.items()}


def read_categories(path: Path, attribute: str) -> tuple[Longs, list[str]]:
    """Categories of the items, from an attribute of their text.

    Returns:
        (items + 1,) numbers from 1, 0 where an item has none; and their names, the first being that of number 1.
    """
    table = read_table(path, "items", ["item", "attributes"]).sort_by("item")
    attributes = [dict(pairs or []) for pairs in table.column("attributes").to_pylist()]
    values = ["", *(re.split(r"[,|;]", str(one.get(attribute) or ""))[0].strip() for one in attributes)]
    names = sorted(set(values) - {""})
    if not names:
        known = sorted({key for one in attributes for key in one})
        tell = log.warning if known else log.info
        tell(
            "%s: no item has the attribute %r (ctr.samples.category), so none has a category%s",
            path, attribute, did_you_mean(attribute, known),
        )  # fmt: skip
    numbers = {name: number for number, name in enumerate(names, 1)} | {"": 0}
    return np.array([numbers[value] for value in values], np.int64), names


def _describe(
    rows: Mapping[str, np.ndarray],
    part: pa.Array,
    offsets: Longs,
    met: Bools,
    counts: Mapping[str, int],
    split: CTRSplit,
) -> dict[str, Any]:
    lengths = rows["end"] - offsets[rows["user"]]
    described = {}
    for name in PARTS:
        mine = np.asarray(pc.equal(part, name))
        described[name] = {
            "samples": int(mine.sum()),
            "users": len(np.unique(rows["user"][mine])),
            "clicks": float(rows["label"][mine].mean()),
            "mean_history": float(lengths[mine].mean()),
            "longest_history": int(lengths[mine].max()),
            "empty_histories": float((lengths[mine] == 0).mean()),
            "unknown_items": float((~met[rows["item"][mine]]).mean()),
        }
    events = {"events": int(offsets[-1]), "users": counts["user"], "items": counts["item"]}
    return {**events, "unit": "seconds" if split.by == "time" else "events", "parts": described}


def _write_array(path: Path, values: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)
