"""Sessions: where they begin, what they are called, that they are held out as a whole, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from tessera.data.dataset import HISTORY, TEST, TRAIN, VALID, load_dataset, read_raw_ids
from tessera.data.files import DataFileError
from tessera.data.rows import LogError
from tessera.settings.datasets import Core
from tessera.settings.sources.base import Dataset, ingest_settings, prepare_settings

Make, Write = Callable[..., Any], Callable[..., str]
DAY = 86_400
START = 1_600_000_000
GAP = {"kind": "gap", "minutes": 30}
EVERY = {"core": {"users": 2, "items": 0}}


def visits(seed: int, users: int = 12, days: int = 20) -> list[tuple[str, str, int]]:
    """Users who come on some days and then meet one to six items within minutes."""
    draw = random.Random(seed)
    rows = []
    for user in range(users):
        for day in sorted(draw.sample(range(days), 6)):
            time = START + day * DAY + draw.randrange(40_000)
            for _ in range(draw.randint(1, 6)):
                rows.append((f"u{user}", f"i{int(30 * draw.random() ** 2)}", time))
                time += draw.randrange(1, 1800)
    return rows


def text(rows: list[tuple[Any, ...]], header: str = "user,item,t") -> str:
    return header + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def by_a_loop(rows: list[tuple[str, str, int]], gap: int = 1800) -> dict[str, list[str]]:
    """Items by session."""
    sessions: dict[str, list[str]] = {}
    for user, own in groupby(sorted(rows, key=lambda row: (row[0], row[2])), key=lambda row: row[0]):
        last, name = None, ""
        for _, item, time in own:
            if last is None or time - last > gap:
                name = f"{user}/{time}"
            sessions.setdefault(name, []).append(item)
            last = time
    return {name: items for name, items in sessions.items() if len(items) > 1}


def made_of(make: Make, path: str, **more: Any) -> Any:
    section = {"source": "columns", "path": path, "timestamp": "t", "sessions": GAP, "cleaning": EVERY}
    return make(**{**section, **more})


@pytest.mark.parametrize("seed", range(4))
def test_sessions_against_a_loop(make: Make, write: Write, seed: int) -> None:
    rows = visits(seed)
    random.Random(seed).shuffle(rows)
    made = made_of(make, write("log.csv", text(rows)))
    assert {name: [item for item, _ in own] for name, own in made.histories().items()} == by_a_loop(rows)
    steps = {step["step"]: step["users"] for step in made.stats["funnel"]}
    assert steps["sessions: a new one after 30 minutes"] > steps["sessions of one item dropped"]
    assert steps["sessions of one item dropped"] == len(by_a_loop(rows))


def test_a_session_is_in_one_part_by_its_end_and_its_last_item_is_the_target(make: Make, write: Write) -> None:
    made = made_of(make, write("log.csv", text(visits(5))), split={"kind": "sessions", "valid": 0.2, "test": 0.3})
    data = load_dataset(made.folder / "data")
    latest, earliest = {}, {}
    for user in range(1, data.n_users + 1):
        rows = slice(data.offsets[user - 1], data.offsets[user])
        split, times = data.split[rows].tolist(), data.timestamps[rows]
        assert set(split) == {TRAIN} or (split[-1] in (VALID, TEST) and set(split[:-1]) == {HISTORY})
        latest[split[-1]] = max(latest.get(split[-1], 0), times[-1])
        earliest[split[-1]] = min(earliest.get(split[-1], times[-1]), times[-1])
    assert latest[TRAIN] < earliest[VALID] <= latest[VALID] < earliest[TEST]
    for part, share in (("valid", 0.2), ("test", 0.3)):
        cases = data.cases(part)  # type: ignore[arg-type]
        assert len(cases) == pytest.approx(share * data.n_users, abs=1)
        assert (cases.lengths > 0).all()


def test_nothing_of_a_held_out_session_trains(make: Make, write: Write) -> None:
    """Whatever the items of held-out sessions are, those that train are the same."""
    rows = visits(6)
    split = {"kind": "sessions", "valid": 0.2, "test": 0.2}
    cleaning = {"core": {"users": 2, "items": 3, "on": "train"}}
    before = made_of(make, write("a.csv", text(rows)), split=split, cleaning=cleaning)
    every = by_a_loop(rows)
    trained = {name for name, own in before.histories().items() if own[-1][1] == "train"}
    cut = max(times for name, times in last_times(rows).items() if name in trained)
    held = {name for name, time in last_times(rows).items() if time > cut and name in every}
    assert held
    after = made_of(make, write("b.csv", text(with_other_items(rows, held))), split=split, cleaning=cleaning)
    assert train_rows(after) == train_rows(before)
    assert after.histories() != before.histories()
    kept = {name for name, own in before.histories().items() if own[-1][1] != "train"}
    assert kept == held, "a core that counts training rows hides no target"


def last_times(rows: list[tuple[str, str, int]]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for user, _, time in sorted(rows, key=lambda row: (row[0], row[2])):
        own = [name for name in ends if name.startswith(f"{user}/") and time - ends[name] <= 1800]
        ends[own[-1] if own else f"{user}/{time}"] = time
    return ends


def with_other_items(rows: list[tuple[str, str, int]], sessions: set[str]) -> list[tuple[str, str, int]]:
    starts: dict[str, list[int]] = {}
    for name in last_times(rows):
        user, time = name.split("/")
        starts.setdefault(user, []).append(int(time))

    def session(user: str, time: int) -> str:
        return f"{user}/{max(start for start in starts[user] if start <= time)}"

    return [(user, f"new{item}" if session(user, time) in sessions else item, time) for user, item, time in rows]


def train_rows(made: Any) -> dict[str, list[str]]:
    return {name: [item for item, _ in own] for name, own in made.histories().items() if own[-1][1] == "train"}


def test_a_session_keeps_its_name_when_earlier_ones_are_read_too(make: Make, write: Write) -> None:
    """A warm start asks what was trained on before by the names of users; a number in a row would move."""
    rows = visits(7)
    whole = made_of(make, write("a.csv", text(rows)))
    later = made_of(make, write("b.csv", text([row for row in rows if row[2] >= START + 10 * DAY])))
    for name, own in later.histories().items():
        assert [item for item, _ in own] == [item for item, _ in whole.histories()[name]]


FORMS = ["csv", "parquet", "jsonl"]


@pytest.mark.parametrize("form", FORMS)
def test_sessions_by_a_column(make: Make, write: Write, form: str, tmp_path: Any) -> None:
    rows = [(f"u{n % 3}", n // 6, f"i{n % 5}", START + 10 * n) for n in range(36)]
    rows[4] = ("u1", "", "i4", START + 40)
    names = ["user", "visit", "item", "t"]
    if form == "csv":
        path = write("log.csv", text(rows, ",".join(names)))
    elif form == "jsonl":
        lines = [dict(zip(names, row, strict=True)) for row in rows]
        path = write("log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    else:
        columns = [pa.array([str(value) if name == "visit" else value for value in values])
                   for name, values in zip(names, zip(*rows, strict=True), strict=True)]  # fmt: skip
        path = str(tmp_path / "log.parquet")
        pq.write_table(pa.table(columns, names), path)
    by_column = {"kind": "column", "column": "visit"}
    made = made_of(make, path, sessions=by_column, cleaning={**EVERY, "max_rejected": 0.1})
    expected: dict[str, list[str]] = {}
    for user, visit, item, _ in rows:
        if visit != "":
            expected.setdefault(f"{user}/{visit}", []).append(item)
    expected = {name: items for name, items in expected.items() if len(items) > 1}
    assert {name: [item for item, _ in own] for name, own in made.histories().items()} == expected
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [
        (6 if form == "csv" else 5, "session is missing")
    ]


def test_users_and_what_their_sessions_are_called_stay_apart(make: Make, write: Write) -> None:
    """However both are written: `a/b` with `c` is not `a` with `b/c`, and `1` with `3` is `1.0` with `3.0`."""
    rows = [("a/b", "x", "c"), ("a", "y", "b/c"), ("a/b", "z", "c"), ("a", "w", "b/c"), ("a%2Fb", "v", "c"),
            ("a%2Fb", "x", "c"), ("1", "x", "3"), ("1.0", "y", "3.0")]  # fmt: skip
    dated = [(user, item, START + n, visit) for n, (user, item, visit) in enumerate(rows)]
    by_column = {"kind": "column", "column": "visit"}
    made = made_of(make, write("log.csv", text(dated, "user,item,t,visit")), sessions=by_column, split={"kind": "none"})
    found = {name: [item for item, _ in own] for name, own in made.histories().items()}
    assert found == {"a%2Fb/c": ["x", "z"], "a/b/c": ["y", "w"], "a%252Fb/c": ["v", "x"], "1/3": ["x", "y"]}


def test_a_file_that_is_sessions_already(make: Make, write: Write) -> None:
    rows = [(f"s{n // 3}", f"i{n % 4}", START + 10 * n) for n in range(30)] + [("alone", "i1", START + 999)]
    made = made_of(make, write("log.csv", text(rows)), sessions={"kind": "given"})
    assert sorted(read_raw_ids(made.folder / "data", "users")[1:]) == sorted(f"s{n}" for n in range(10))
    assert [own[-1][1] for own in made.histories().values()] == ["train"] * 8 + ["valid", "test"]


def test_the_parts_of_the_source_hold_out_whole_sessions(make: Make, write: Write) -> None:
    """A gap also ends where a part does; a session that lies in two is refused."""
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    rows = [("u", f"i{n % 5}", START + n, part) for n, part in enumerate(parts)]
    more = {"split_column": "part", "split": {"kind": "given"}}
    path = write("log.csv", text(rows, "user,item,t,part"))
    made = made_of(make, path, **more)
    assert sorted([part for _, part in own] for own in made.histories().values()) == [
        ["history", "history", "test"], ["history", "history", "valid"], ["train"] * 6,
    ]  # fmt: skip
    with pytest.raises(LogError, match="puts rows of session 'u' into several parts"):
        made_of(make, path, sessions={"kind": "given"}, **more)


def test_a_row_without_a_part_is_of_the_training_sessions_beside_it(make: Make, write: Write) -> None:
    parts = ["train", ""] * 3 + ["val"] * 3 + ["test"] * 3
    rows = [("u", f"i{n % 5}", START + n, part) for n, part in enumerate(parts)]
    path = write("log.csv", text(rows, "user,item,t,part"))
    made = made_of(make, path, split_column="part", split={"kind": "given"})
    assert ["train"] * 6 in [[part for _, part in own] for own in made.histories().values()]
    apart = [(f"s{n // 3}", item, time, part) for n, (_, item, time, part) in enumerate(rows)]
    given = made_of(
        make, write("apart.csv", text(apart, "user,item,t,part")), sessions={"kind": "given"}, split_column="part",
        split={"kind": "given"},
    )  # fmt: skip
    assert [[part for _, part in own] for own in given.histories().values()].count(["train"] * 3) == 2


def test_sessions_of_a_column_need_no_times_where_the_source_says_the_parts(make: Make, write: Write) -> None:
    rows = [("u", f"i{n % 5}", n // 3, part) for n, part in enumerate(["train"] * 6 + ["val"] * 3 + ["test"] * 3)]
    path = write("log.csv", "user,item,visit,part\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    more = {"sessions": {"kind": "column", "column": "visit"}, "split": {"kind": "given"}, "split_column": "part"}
    made = made_of(make, path, timestamp=None, **more)
    assert {name: [part for _, part in own] for name, own in made.histories().items()} == {
        "u/0": ["train"] * 3, "u/1": ["train"] * 3, "u/2": ["history", "history", "valid"],
        "u/3": ["history", "history", "test"],
    }  # fmt: skip


def test_without_a_split_all_sessions_train(make: Make, write: Write) -> None:
    rows = visits(8)
    made = made_of(make, write("log.csv", text(rows)), split={"kind": "none"})
    assert {part for own in made.histories().values() for _, part in own} == {"train"}
    assert {name: [item for item, _ in own] for name, own in made.histories().items()} == by_a_loop(rows)


def test_a_core_never_leaves_a_session_of_one(make: Make, write: Write) -> None:
    rows = visits(9, users=30)
    for core in ({"users": 0, "items": 8}, {"users": 0, "items": 8, "on": "train"}, None):
        made = made_of(make, write("log.csv", text(rows)), cleaning={"core": core, "max_history": 3})
        assert min(len(own) for own in made.histories().values()) >= 2
        assert max(len(own) for name, own in made.histories().items() if own[-1][1] == "train") == 3
        assert max(len(own) for name, own in made.histories().items() if own[-1][1] != "train") > 3


def test_what_a_given_split_holds_out_keeps_its_whole_session(make: Make, write: Write) -> None:
    """As under a split by time: `max_history` is of what trains."""
    parts = ("train", "train", "valid", "test")
    rows = [f"u{u},i{n},{10 * u + n},{part}" for u, part in enumerate(parts) for n in range(6)]
    log = write("log.csv", "\n".join(["user,item,timestamp,part", *rows]))
    section = {"sessions": {"kind": "given"}, "split": {"kind": "given"}, "cleaning": {"max_history": 3, "core": None}}
    made = make(source="columns", path=log, timestamp="timestamp", split_column="part", **section)
    assert {name: len(own) for name, own in made.histories().items()} == {"u0": 3, "u1": 3, "u2": 6, "u3": 6}


def settings(**section: Any) -> Any:
    return TypeAdapter[Any](Dataset).validate_python({"source": "columns", "path": "log.csv", **section})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sessions": {"kind": "gap", "minutes": 0}, "timestamp": "t"}, "greater than 0"),
        ({"sessions": {"kind": "gap", "minutes": -5.0}, "timestamp": "t"}, "greater than 0"),
        ({"sessions": {"kind": "gaps"}, "timestamp": "t"}, "'gap', 'column', 'given'"),
        ({"sessions": GAP}, "goes by time: name the column in `timestamp`"),
        (
            {"sessions": GAP, "split": {"kind": "leave_one_out"}, "timestamp": "t"},
            "leave_one_out would divide a session",
        ),
        ({"sessions": GAP, "split": {"kind": "global_temporal"}, "timestamp": "t"}, "would divide a session"),
        ({"split": {"kind": "sessions"}, "timestamp": "t"}, "needs the key `sessions`"),
        (
            {"source": "movielens", "sessions": {"kind": "column", "column": "visit"}},
            "source 'movielens' has no column",
        ),
    ],
)
def test_settings_that_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**section)


def test_logs_that_are_refused(make: Make, write: Write) -> None:
    order = [("a", f"i{n}", n + 1) for n in range(30)]
    with pytest.raises(LogError, match="times are no dates but say an order"):
        made_of(make, write("a.csv", text(order)))
    alone = [(f"u{n}", f"i{n % 5}", START + n) for n in range(30)]
    with pytest.raises(LogError, match=r"cleaning leaves no interactions .* sessions of one item dropped: 0"):
        made_of(make, write("b.csv", text(alone)))
    with pytest.raises(LogError, match="sessions: a gap needs times, but the log has none"):
        make(source="sequences", layout="lines", path=write("c.txt", "u1 1 2 3\nu2 2 3 4\n"), sessions=GAP)
    rows = text(visits(1), "user,item,t")
    with pytest.raises(DataFileError, match=r"no column 'vist' \(for session\).*known: item, t, user"):
        made_of(make, write("d.csv", rows), sessions={"kind": "column", "column": "vist"})
    with pytest.raises(DataFileError, match=r"no column 'itme' \(for session\); did you mean 'item'"):
        made_of(make, write("e.csv", rows), sessions={"kind": "column", "column": "itme"})
    histories = write("f.json", json.dumps({"u1": ["a", "b"], "u2": ["b", "c"]}))
    with pytest.raises(DataFileError, match=r"say sessions: \{kind: given}"):
        made_of(make, histories, sessions={"kind": "column", "column": "visit"})


def test_another_gap_reads_no_file_again() -> None:
    sessions = [GAP, {"kind": "gap", "minutes": 60}, None, {"kind": "column", "column": "visit"}]
    made = [settings(timestamp="t", sessions=each) for each in sessions]
    assert ingest_settings(made[0]) == ingest_settings(made[1]) == ingest_settings(made[2]) != ingest_settings(made[3])
    assert len({json.dumps(prepare_settings(each), sort_keys=True) for each in made}) == 4


@pytest.mark.parametrize("core", [{}, {"items": 5}, {"items": 3}, {"on": "all"}])
def test_a_core_that_says_nothing_of_sessions_keeps_those_of_two(core: dict[str, Any]) -> None:
    settings = TypeAdapter(Dataset).validate_python(
        {
            "source": "columns",
            "path": "x.csv",
            "timestamp": "t",
            "sessions": {"kind": "gap"},
            "cleaning": {"core": core},
        }
    )
    assert settings.cleaning.core == Core(**{"users": 2, "items": 5, **core})
