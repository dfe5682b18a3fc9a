"""Splits against plain loops; ties; nothing held out reaches the training rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from random_logs import random_rows

from tessera.data.dataset import SPLITS, load_dataset
from tessera.data.rows import LogError
from tessera.data.splits import DROPPED, cuts, global_temporal, leave_one_out
from tessera.settings.datasets import GlobalTemporal

NO_CLEANING = {"core": None, "duplicates": "keep"}


@pytest.mark.parametrize("seed", range(6))
def test_leave_one_out_against_a_loop(seed: int) -> None:
    rows = random_rows(seed, count=120)
    split = leave_one_out(rows)
    for user in set(rows.users.tolist()):
        own = [SPLITS[code] for code in split[rows.users == user]]
        short = len(own) < 3
        assert own == ["train"] * len(own) if short else ["train"] * (len(own) - 2) + ["valid", "test"]


@pytest.mark.parametrize("target", ["first", "last", "random", "new"])
@pytest.mark.parametrize("seed", range(6))
def test_global_temporal_against_a_loop(seed: int, target: Any) -> None:
    rows = random_rows(seed, count=300)
    assert rows.times is not None
    settings = GlobalTemporal(valid=0.2, test=0.2, target=target, seed=seed)
    moments = cuts(rows.times, settings)
    split = global_temporal(rows, moments, settings)
    assert split.tolist() == global_temporal(rows, moments, settings).tolist()
    trained = set(rows.items[rows.times < moments[0]].tolist())
    for user in set(rows.users.tolist()):
        own, times = split[rows.users == user].tolist(), rows.times[rows.users == user].tolist()
        place: dict[int, int] = {}
        for part, (low, high) in {1: moments, 2: (moments[1], 10**9)}.items():
            could = [i for i, time in enumerate(times) if low <= time < high and i > 0]
            chosen = [i for i, code in enumerate(own) if code == part]
            assert len(chosen) == bool(could)
            if could:
                place[part] = chosen[0]
                new = [i for i in could if rows.items[rows.users == user][i] not in trained] if part == 2 else []
                wanted = {"first": could, "last": could[::-1], "random": could, "new": new or could}[target]
                assert chosen[0] in (wanted if target == "random" else wanted[:1])
        last = max(place.values(), default=-1)
        for i, time in enumerate(times):
            if time < moments[0]:
                assert own[i] == 0
            elif i not in place.values():
                assert own[i] == (3 if i < last else DROPPED)


def test_cuts() -> None:
    times = np.arange(100)
    assert cuts(times, GlobalTemporal(valid=0.1, test=0.1)) == (80, 90)
    assert cuts(np.repeat(np.arange(10), 10), GlobalTemporal(valid=0.15, test=0.15)) == (6, 8), "ties fall after a cut"
    days = GlobalTemporal(valid="1970-01-02", test="1970-01-03")
    assert cuts(np.arange(0, 400_000, 1000), days) == (86_400, 172_800)
    mixed = GlobalTemporal(valid=0.1, test="1970-01-03")
    assert cuts(np.arange(0, 400_000, 1000), mixed) == (133_000, 172_800)
    with pytest.raises(LogError, match="leaves no test rows: cuts at 1970-01-02T00:00:00 and 1971"):
        cuts(np.arange(0, 400_000, 1000), GlobalTemporal(valid="1970-01-02", test="1971-01-01"))
    with pytest.raises(LogError, match="leaves no train rows"):
        cuts(np.zeros(5, np.int64), GlobalTemporal())
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        GlobalTemporal(test=1.5)


def log_text(rows: list[tuple[str, str, int]]) -> str:
    return "user,item,t\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows)


def test_ties_keep_the_order_of_the_source(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Rows of other users may be shuffled in between, equal times of a user may not change places."""
    draw = random.Random(0)
    rows = [(f"u{n % 5}", f"i{draw.randrange(50)}", draw.randrange(3)) for n in range(100)]
    section = {"source": "columns", "timestamp": "t", "cleaning": NO_CLEANING}
    first = make(path=write("a.csv", log_text(rows)), **section)
    mixed: list[tuple[str, str, int]] = []
    queues = {time: [row for row in rows if row[2] == time] for time in range(3)}
    while any(queues.values()):
        mixed.append(queues[draw.choice([time for time, left in queues.items() if left])].pop(0))
    second = make(path=write("b.csv", log_text(mixed)), **section)
    assert first.data("interactions").equals(second.data("interactions"))
    assert first.stats["tie_share"] == 1.0


def held_out_permuted(rows: list[dict[str, Any]], seed: int) -> list[tuple[str, str, int]]:
    """The same log with the items of all rows that do not train given to one another."""
    held = [place for place, row in enumerate(rows) if row["split"] != "train"]
    items = [rows[place]["item"] for place in held]
    random.Random(seed).shuffle(items)
    changed = dict(zip(held, items, strict=True))
    return [(row["user"], changed.get(place, row["item"]), row["t"]) for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("split", "core"),
    [
        ({"kind": "leave_one_out"}, {"users": 5, "items": 5}),
        ({"kind": "global_temporal", "target": "random"}, {"users": 3, "items": 5, "on": "train"}),
    ],
)
def test_held_out_items_do_not_reach_training(
    make: Callable[..., Any], write: Callable[..., str], split: dict[str, Any], core: dict[str, Any]
) -> None:
    draw = random.Random(1)
    rows = [(f"u{draw.randrange(40)}", f"i{int(60 * draw.random() ** 2)}", n) for n in range(900)]
    section = {"source": "columns", "timestamp": "t", "split": split}
    before = make(path=write("a.csv", log_text(rows)), cleaning={"core": core}, **section)
    users = ["", *before.data("users")["raw_id"].to_pylist()]
    items = ["", *before.data("items")["raw_id"].to_pylist()]
    kept = [
        {"user": users[row["user"]], "item": items[row["item"]], "t": row["timestamp"], "split": row["split"]}
        for row in before.data("interactions").to_pylist()
    ]
    # the rows that training sees, by raw id, whatever the held-out items are
    same = {"cleaning": {"core": None}, **section}
    if split["kind"] == "global_temporal":
        rows_left = {(row["user"], row["t"]) for row in kept}
        shuffled = held_out_permuted(kept, 2) + [row for row in rows if (row[0], row[2]) not in rows_left]
        same["cleaning"] = {"core": core}
        shuffled.sort(key=lambda row: row[2])
    else:
        shuffled = held_out_permuted(kept, 2)
    after = make(path=write("b.csv", log_text(shuffled)), **same)
    assert train_rows(after) == train_rows(before)
    assert after.histories() != before.histories()


def train_rows(made: Any) -> dict[str, list[str]]:
    found = {user: [item for item, part in rows if part == "train"] for user, rows in made.histories().items()}
    return {user: items for user, items in found.items() if items}


def test_nothing_after_the_first_cut_trains(make: Callable[..., Any], write: Callable[..., str]) -> None:
    draw = random.Random(3)
    rows = [(f"u{draw.randrange(30)}", f"i{draw.randrange(20)}", draw.randrange(500)) for _ in range(600)]
    made = make(
        source="columns",
        path=write("a.csv", log_text(rows)),
        timestamp="t",
        cleaning={"core": None},
        split={"kind": "global_temporal", "valid": 0.15, "test": 0.15},
    )
    data = load_dataset(made.folder / "data")
    first_cut = min(data.timestamps[data.split != 0])
    assert data.timestamps[data.split == 0].max() < first_cut
    for part in ("valid", "test"):
        cases = data.cases(part)  # type: ignore[arg-type]
        assert (cases.lengths > 0).all()
    assert data.timestamps[data.split == 2].min() > data.timestamps[data.split == 1].max()


def test_temporal_core_drops_by_train_counts(make: Callable[..., Any], write: Callable[..., str]) -> None:
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "x", 3), ("b", "x", 1), ("b", "x", 4), ("c", "x", 9)]
    rows += [("a", "z", 10), ("a", "y", 11), ("b", "z", 12), ("c", "z", 13), ("a", "q", 14)]
    made = make(
        source="columns",
        path=write("a.csv", log_text(rows)),
        timestamp="t",
        cleaning={"core": {"users": 2, "items": 2, "on": "train"}},
        split={"kind": "global_temporal", "valid": 0.18, "test": 0.27},
    )
    assert made.histories() == {
        "a": [("x", "train"), ("x", "train"), ("z", "valid"), ("y", "history"), ("q", "test")],
        "b": [("x", "train"), ("x", "train"), ("z", "test")],
    }
    assert made.stats["cold_test_targets"] == 2


@pytest.mark.parametrize("base", [{"kind": "leave_one_out"}, {"kind": "global_temporal", "valid": 0.25, "test": 0.25}])
@pytest.mark.parametrize("core", [None, {"users": 2, "items": 2, "on": "all"}])
def test_without_a_split_every_row_that_cleaning_keeps_trains(
    make: Callable[..., Any], write: Callable[..., str], base: dict[str, Any], core: Any
) -> None:
    rows = [(f"u{n % 7}", f"i{n * n % 11}", 1_600_000_000 + 1000 * n) for n in range(80)]
    section = {"source": "columns", "path": write("log.csv", log_text(rows)), "user": "user", "item": "item",
               "timestamp": "t", "cleaning": {"core": core}}  # fmt: skip
    split, whole = make(**section, split=base), make(**section, split={"kind": "none"})
    assert whole.stats["counts"]["train"] == whole.stats["counts"]["interactions"]
    kept = [step["interactions"] for step in split.stats["funnel"] if "after the last target" not in step["step"]][-1]
    assert whole.stats["counts"]["train"] == kept
    for user, history in split.histories().items():
        found = whole.histories()[user]
        assert [item for item, _ in history] == [item for item, _ in found][: len(history)]
        assert {part for _, part in found} == {"train"}


GIVEN = {"source": "columns", "user": "u", "item": "i", "timestamp": "t", "split_column": "part"}


def marked(parts: dict[str, str]) -> str:
    """A log by user: item and part of each row, as `a:train b:test`."""
    rows = [(user, *row.split(":")) for user, own in parts.items() for row in own.split()]
    lines = (f"{user},{item},{1_600_000_000 + n},{part}\n" for n, (user, item, part) in enumerate(rows))
    return "u,i,t,part\n" + "".join(lines)


def test_held_out_rows_take_no_place_of_the_training_part(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """`max_history` counts training rows alone where the source says what is held out; the target is the first one."""
    own = "a:train b:train c:train d:train e:valid f:test g:test h:test"
    path = write("log.csv", marked(dict.fromkeys(("1", "2", "3"), own)))
    made = make(**GIVEN, path=path, split={"kind": "given"}, cleaning={"core": None, "max_history": 3})
    assert made.histories()["1"] == [("b", "train"), ("c", "train"), ("d", "train"), ("e", "valid"), ("f", "test")]


def test_a_train_core_does_not_count_what_validates(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """The last train row of a user without a valid one validates: it is held out before anything is counted."""
    path = write("log.csv", marked({
        "1": "common:train pop:train rare:train pop:test", "2": "pop:train common:train rare:train common:test",
        "3": "common:train pop:train pop:test", "4": "rare:train common:train pop:train common:test",
    }))  # fmt: skip
    core = {"users": 1, "items": 2, "on": "train"}
    made = make(**GIVEN, path=path, split={"kind": "given"}, cleaning={"core": core})
    rows = made.histories()
    assert rows["1"] == [("common", "train"), ("pop", "train"), ("rare", "valid"), ("pop", "test")]
    # one row that trains is left of `rare`, fewer than two: it goes, and the rows that validate stay
    assert rows["4"] == [("common", "train"), ("pop", "valid"), ("common", "test")]


def test_parts_may_be_numbers_with_gaps_or_padded(make: Callable[..., Any], write: Callable[..., str]) -> None:
    parts = ["0.0", "", " train", "nan", "1.0", " Test "]
    lines = "".join(f"1,i{n},{1_600_000_000 + n},{part}\n" for n, part in enumerate(parts))
    made = make(**GIVEN, path=write("log.csv", "u,i,t,part\n" + lines), split={"kind": "given"}, cleaning=NO_CLEANING)
    assert [part for _, part in made.histories()["1"]] == ["train"] * 4 + ["valid", "test"]
    assert not made.rejected
    bad = write("bad.csv", "u,i,t,part\n" + lines + "2,i1,1600000000,tets\n")
    made = make(**GIVEN, path=bad, split={"kind": "given"}, cleaning={**NO_CLEANING, "max_rejected": 0.5})
    assert made.rejected[0][2] == "split tets is unknown, expected train, valid or test, or 0, 1, 2"


@pytest.mark.parametrize("split", [{"kind": "given"}, {"kind": "global_temporal"}])
def test_the_last_meeting_is_refused_where_it_may_be_held_out(
    split: dict[str, Any], make: Callable[..., Any], write: Callable[..., str]
) -> None:
    path = write("log.csv", marked({"1": "a:train b:train a:test"}))
    with pytest.raises(ValueError, match=r"'last' lets what split .* holds out take earlier rows out of the training"):
        make(**GIVEN, path=path, split=split, cleaning={**NO_CLEANING, "repeats": "last"})


def test_a_day_that_nanoseconds_do_not_reach_is_after_all_rows(
    make: Callable[..., Any], write: Callable[..., str]
) -> None:
    rows = "".join(f"u{n % 3},i{n},{1_600_000_000_000_000_000 + n * 10**15}\n" for n in range(9))
    path = write("log.csv", "u,i,t\n" + rows)
    with pytest.raises(LogError, match="leaves no test rows"):
        make(source="columns", path=path, user="u", item="i", timestamp="t", cleaning=NO_CLEANING,
             split={"kind": "global_temporal", "valid": "2020-10-01", "test": "2500-01-01"})  # fmt: skip
