"""Cleaning against plain loops over the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_logs import random_rows

from tessera.data import cleaning
from tessera.data.cleaning import Funnel, cap_histories, filter_rows, k_core, midnight
from tessera.data.rows import LogError, Rows
from tessera.settings.datasets import Cleaning, Core


def tuples(rows: Rows) -> list[tuple[int, int, int]]:
    assert rows.times is not None
    return list(zip(rows.users.tolist(), rows.items.tolist(), rows.times.tolist(), strict=True))


def loop_core(rows: list[tuple[int, int, int]], core: Core) -> list[tuple[int, int, int]]:
    while True:
        users = Counter(user for user, _, _ in rows)
        items = Counter(item for _, item, _ in rows)
        kept = [row for row in rows if users[row[0]] >= core.users and items[row[1]] >= core.items]
        if len(kept) == len(rows):
            return kept
        rows = kept


@pytest.mark.parametrize("seed", range(8))
def test_k_core_against_a_loop(seed: int) -> None:
    rows = random_rows(seed)
    core = Core(users=5 + seed % 3, items=8)
    assert tuples(rows.take(k_core(rows, core))) == loop_core(tuples(rows), core)


def core_by_passes(rows: Rows, core: Core, counted: np.ndarray | None = None) -> np.ndarray:
    """The core by the rule alone: all weak users and items go, until none is weak."""
    kept = np.ones(len(rows), bool) if counted is None else counted.copy()
    while True:
        users, items = (np.bincount(codes[kept], minlength=codes.max() + 1) for codes in (rows.users, rows.items))
        strong = (users >= core.users)[rows.users]
        both = kept & strong & (items >= core.items)[rows.items]
        if (both == kept).all():
            return kept if counted is None else (kept | ~counted) & strong
        kept = both


def graph(users: np.ndarray, items: np.ndarray) -> Rows:
    order = np.lexsort((items, users))
    codes = (side[order].astype(np.int32) for side in (users, items))
    return Rows(*codes, None, np.zeros(len(order), np.float32), np.zeros(len(order), np.uint8))


@pytest.mark.parametrize("passes", [0, 1, 16])
@pytest.mark.parametrize("seed", range(12))
def test_k_core_of_random_graphs_however_it_is_made(seed: int, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "_PASSES", passes)
    draw = np.random.default_rng(seed)
    size = int(draw.integers(1, 3000))
    n_users, n_items = draw.integers(1, 600, 2)
    users, items = (draw.integers(0, n, size) // draw.choice([1, 1, 2, 9], size) for n in (n_users, n_items))
    rows = graph(users, items)
    for least in [(0, 0), (2, 2), (5, 0), (0, 5), (4, 7), (6, 3), (99, 1)]:
        core = Core(users=least[0], items=least[1])
        np.testing.assert_array_equal(k_core(rows, core), core_by_passes(rows, core))
        counted = draw.random(size) < draw.random()
        np.testing.assert_array_equal(k_core(rows, core, counted), core_by_passes(rows, core, counted))


@pytest.mark.parametrize("closed", [False, True])
def test_k_core_of_a_chain_reads_each_row_a_few_times(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    length, count, slices = 5000, np.bincount, cleaning.slices
    read = 0

    def counting(codes: np.ndarray, minlength: int) -> np.ndarray:
        nonlocal read
        read += len(codes) + minlength
        return count(codes, minlength=minlength)

    def cutting(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal read
        read += int(lengths.sum())
        return slices(starts, lengths)

    monkeypatch.setattr(np, "bincount", counting)
    monkeypatch.setattr(cleaning, "slices", cutting)
    users = np.repeat(np.arange(length), 2)
    items = np.stack([np.arange(length), np.arange(1, length + 1)], 1).ravel()
    if closed:  # a ring is its own core, and another chain hangs on it
        users, items = np.append(users, [length, length]), np.append(items, [length // 2, length])
    kept = k_core(graph(users, items), Core(users=2, items=2))
    assert kept.sum() == (length + 2 if closed else 0)
    assert read < 64 * len(users)


@pytest.mark.parametrize("seed", range(4))
def test_train_core_counts_train_rows_only(seed: int) -> None:
    rows = random_rows(seed)
    assert rows.times is not None
    train = rows.times < 35
    core = Core(users=4, items=6, on="train")
    kept = k_core(rows, core, train)
    expected = loop_core(tuples(rows.take(train)), core)
    assert tuples(rows.take(kept & train)) == expected
    users = {user for user, _, _ in expected}
    later = [row for row in tuples(rows.take(~train)) if row[0] in users]
    assert tuples(rows.take(kept & ~train)) == later, "what comes later is kept, whatever its item"


@pytest.mark.parametrize("seed", range(4))
def test_filters_against_loops(seed: int) -> None:
    rows = random_rows(seed)
    plain = tuples(rows)

    def result(**settings: Any) -> list[tuple[int, int, int]]:
        return tuples(filter_rows(rows, Cleaning(**settings), Funnel()))

    unique = list(dict.fromkeys(plain))
    assert result() == unique
    assert result(duplicates="keep") == plain
    first: dict[tuple[int, int], tuple[int, int, int]] = {}
    last: dict[tuple[int, int], tuple[int, int, int]] = {}
    for row in unique:
        first.setdefault(row[:2], row)
        last[row[:2]] = row
    assert result(repeats="first") == sorted(first.values(), key=unique.index)
    assert result(repeats="last") == sorted(last.values(), key=unique.index)
    high = [row for row, rating in zip(plain, rows.ratings, strict=True) if not rating < 3]
    assert result(duplicates="keep", min_rating=3.0) == high


@pytest.mark.parametrize("seed", range(4))
def test_history_cap(seed: int) -> None:
    rows = random_rows(seed)
    by_user: dict[int, list[tuple[int, int, int]]] = {}
    for row in tuples(rows):
        by_user.setdefault(row[0], []).append(row)
    assert tuples(rows.take(cap_histories(rows, 4))) == [row for own in by_user.values() for row in own[-4:]]
    assert rows.times is not None
    train = rows.times < 25
    expected = [
        row for own in by_user.values() for row in [r for r in own if r[2] < 25][-3:] + [r for r in own if r[2] >= 25]
    ]
    assert tuples(rows.take(cap_histories(rows, 3, train))) == expected


def test_dates_are_whole_days(make: Callable[..., Any], write: Callable[..., str]) -> None:
    days = ["2020-01-01T23:59:59", "2020-01-02", "2020-01-02T12:00:00", "2020-01-03T23:59:59", "2020-01-04"]
    text = "user,item,t\n" + "".join(f"u,i{n},{day}\n" for n, day in enumerate(days))
    cleaning = {"since": "2020-01-02", "until": "2020-01-03", "core": None}
    made = make(source="columns", path=write("a.csv", text), timestamp="t", cleaning=cleaning)
    assert [item for item, _ in made.histories()["u"]] == ["i1", "i2", "i3"]
    assert [(step["step"], step["interactions"]) for step in made.stats["funnel"]] == [
        ("read", 5),
        ("since 2020-01-02", 4),
        ("until 2020-01-03", 3),
        ("exact duplicates dropped", 3),
    ]
    with pytest.raises(LogError, match="not a day"):
        midnight("2020-02-30")


def test_messages(make: Callable[..., Any], write: Callable[..., str]) -> None:
    path = write("p", "1 5\n1 6\n2 5\n")
    with pytest.raises(LogError, match=r"leaves no interactions \(read: 3 -> core: users 5, items 5.*: 0\)"):
        make(source="sequences", path=path)
    with pytest.raises(LogError, match="but the log has no times"):
        make(source="sequences", path=path, cleaning={"since": "2020-01-01"})
    with pytest.raises(LogError, match="split global_temporal needs times"):
        make(source="sequences", path=path, cleaning={"core": None}, split={"kind": "global_temporal"})
    with pytest.raises(LogError, match="marks no row as test"):
        make(source="sequences", path=path, cleaning={"core": None}, split={"kind": "given"})
    with pytest.raises(ValueError, match=r"cleaning\.core\.on: 'train' needs split"):
        make(source="sequences", path=path, cleaning={"core": {"on": "train"}})


def test_of_duplicates_the_highest_rating_stays(caplog: pytest.LogCaptureFixture) -> None:
    """A log with a row of the view and a row of the click in the same second has a click there."""
    nothing = float("nan")
    #         view, click   click, view    unrated, click    unrated twice  alone
    users = [1, 1, 1, 1, 1, 1, 2, 2, 2]
    items = [1, 1, 2, 2, 3, 3, 1, 1, 2]
    times = [5, 5, 6, 6, 7, 7, 5, 5, 5]
    ratings = [0, 1, 1, 0, nothing, 1, nothing, nothing, 0]
    rows = Rows(
        np.array(users, np.int32), np.array(items, np.int32), np.array(times),
        np.array(ratings, np.float32), np.zeros(9, np.uint8),
    )  # fmt: skip
    with caplog.at_level("INFO", "tessera"):
        kept = filter_rows(rows, Cleaning(core=None), Funnel())
    assert tuples(kept) == [(1, 1, 5), (1, 2, 6), (1, 3, 7), (2, 1, 5), (2, 2, 5)]
    np.testing.assert_array_equal(kept.ratings, [1, 1, 1, nothing, 0])
    np.testing.assert_array_equal(rows.ratings, np.array(ratings, np.float32))
    assert "2 rows take the higher rating of a duplicate" in caplog.text


def test_a_held_out_duplicate_gives_no_rating_to_a_row_that_trains() -> None:
    ones = np.ones(2, np.int32)
    rows = Rows(ones, ones, np.array([5, 5]), np.array([0, 1], np.float32), np.array([0, 2], np.uint8))
    kept = filter_rows(rows, Cleaning(core=None), Funnel())
    assert (kept.ratings.tolist(), kept.given.tolist()) == ([0.0], [0])
