"""Times in every form that logs have: read in their own resolution and order, or refused with the accepted forms."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tessera.ctr.data import load_samples
from tessera.ctr.samples import make_samples
from tessera.data.clock import Clock, read_clock
from tessera.data.dataset import load_dataset
from tessera.data.files import DataFileError
from tessera.data.held_out import Moment, Seen, first_held_out, last_trained, seen_before
from tessera.data.log import RejectedError
from tessera.data.rows import LogError
from tessera.data.times import TimeColumn
from tessera.settings.ctr import ImpressionSamples

DATA = os.environ.get("TESSERA_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")
FAULTS = Path(DATA) / "faults"
KEEP = {"core": None}
START = 1_600_000_000  # 2020-09-13 12:26:40 UTC
Event = tuple[str, str, int]
"""User, item and nanoseconds since 1970."""


def events(step: int, seed: int = 0, count: int = 240) -> list[Event]:
    """Events of 30 users, `step` nanoseconds apart, in an order that is not that of the times."""
    draw = random.Random(seed)
    rows = [(f"u{draw.randrange(30)}", f"i{draw.randrange(20)}", START * 10**9 + n * step) for n in range(count)]
    draw.shuffle(rows)
    return rows


def in_order(rows: list[Event]) -> dict[str, list[str]]:
    """Items of every user by time, ties in the order of the rows: what a plain sort says."""
    found: dict[str, list[str]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        found.setdefault(user, []).append(item)
    return found


def moment(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)


def histories(made: Any) -> dict[str, list[str]]:
    return {user: [item for item, _ in rows] for user, rows in made.histories().items()}


def csv_of(rows: list[Event], written: Callable[[int], Any], separator: str = ",") -> str:
    lines = [separator.join((user, item, f'"{written(time)}"')) for user, item, time in rows]
    return "\n".join([separator.join(("user", "item", "t")), *lines]) + "\n"


# ---------------------------------------------------------------- resolution, over all formats

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "jsonl", "jsonl text", "recbole"])
@pytest.mark.parametrize("unit", UNITS)
def test_resolution_is_that_of_the_source(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, form: str, unit: str
) -> None:
    rows = events(UNITS[unit])
    section: dict[str, Any] = {"source": "columns", "timestamp": "t", "cleaning": KEEP}
    if form == "parquet":
        path = str(tmp_path / "a.parquet")
        columns = {"user": [u for u, _, _ in rows], "item": [i for _, i, _ in rows]}
        pl.DataFrame({**columns, "t": [time // UNITS[unit] for *_, time in rows]}).write_parquet(path)
    elif form.startswith("jsonl"):
        kind: Any = str if "text" in form else int
        lines = [json.dumps({"user": u, "item": i, "t": kind(time // UNITS[unit])}) for u, i, time in rows]
        path = write("a.jsonl", "\n".join(lines))
    elif form == "recbole":
        section = {"source": "recbole", "cleaning": KEEP}
        lines = [f"{u}\t{i}\t{time // UNITS[unit]}" for u, i, time in rows]
        path = write("a.inter", "user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(lines) + "\n")
    else:
        path = write("a.csv", csv_of(rows, lambda t: t // UNITS[unit], "\t" if form == "tsv" else ","))
    made = make(path=path, **section)
    assert histories(made) == in_order(rows)
    for name in ("raw/interactions.parquet", "data/interactions.parquet"):
        assert read_clock(made.folder / name) == Clock(unit)
    assert sorted(made.data("interactions")["timestamp"].to_pylist()) == sorted(t // UNITS[unit] for *_, t in rows)
    assert made.stats["counts"]["interactions"] == len(rows)
    assert made.stats["tie_share"] == 0
    assert made.stats["time_unit"] == unit
    ends = min(t for *_, t in rows) / 1e9, max(t for *_, t in rows) / 1e9
    assert made.stats["period"] == pytest.approx(ends, abs=1e-6)
    data = load_dataset(made.folder / "data")
    assert data.clock == Clock(unit)


@pytest.mark.parametrize(
    ("name", "column", "unit"),
    [
        ("seconds with a fraction", lambda t: pl.Series([x / 10**9 for x in t]), "ms"),
        ("milliseconds with a fraction", lambda t: pl.Series([x / 10**6 + 0.25 for x in t]), "us"),
        ("milliseconds as floats", lambda t: pl.Series([x / 10**6 for x in t]), "ms"),
        ("nanoseconds as floats", lambda t: pl.Series([float(x + 2**9) for x in t]), "ns"),
        ("decimals", lambda t: pl.Series([Decimal(x) / 10**9 for x in t], dtype=pl.Decimal(20, 3)), "ms"),
        ("datetime ms", lambda t: pl.Series([x // 10**6 for x in t]).cast(pl.Datetime("ms")), "ms"),
        ("datetime us", lambda t: pl.Series([x // 10**3 for x in t]).cast(pl.Datetime("us", "Asia/Tokyo")), "ms"),
        ("datetime ns", lambda t: pl.Series([x + 7 for x in t]).cast(pl.Datetime("ns")), "ns"),
        ("texts", lambda t: pl.Series([f"{moment(x):%Y-%m-%d %H:%M:%S.%f}" for x in t]), "ms"),
        ("categories", lambda t: pl.Series([f"{moment(x):%F %T.%f}" for x in t], dtype=pl.Categorical), "ms"),
        ("bytes", lambda t: pl.Series([f"{x // 10**6}".encode() for x in t]), "ms"),
    ],
)  # fmt: skip
def test_types_of_parquet(make: Callable[..., Any], tmp_path: Path, name: str, column: Any, unit: str) -> None:
    rows = events(100 * 10**6)
    columns = {"user": [u for u, _, _ in rows], "item": [i for _, i, _ in rows], "t": column([t for *_, t in rows])}
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    made = make(source="columns", path=str(tmp_path / "a.parquet"), timestamp="t", cleaning=KEEP)
    assert histories(made) == in_order(rows)
    assert made.stats["time_unit"] == unit
    assert made.stats["period"][0] == pytest.approx(START, abs=1e-3)


@pytest.mark.parametrize("dtype", [pl.Duration("us"), pl.Time, pl.Boolean, pl.List(pl.Int64)])
def test_types_that_are_no_times(make: Callable[..., Any], tmp_path: Path, dtype: Any) -> None:
    frame = pl.DataFrame({"user": ["a"] * 3, "item": ["x", "y", "z"], "t": pl.Series([None] * 3, dtype=dtype)})
    value = {pl.Duration: timedelta(5), pl.Time: datetime(1, 1, 1, 9).time(), pl.Boolean: True, pl.List: [1]}
    shown = pl.Series("t", [value[dtype.base_type()]] * 3, dtype=dtype)
    frame.with_columns(shown).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        DataFileError, match=r"a\.parquet: column 't' \(for timestamp\) holds .*, expected numbers, texts"
    ):
        make(source="columns", path=str(tmp_path / "a.parquet"), timestamp="t")


def test_whole_seconds_stay_whole_seconds(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """However they are written, the dataset is the same."""
    rows = events(10**9)
    forms: list[Callable[[int], Any]] = [
        lambda t: t // 10**9, lambda t: t // 10**6, lambda t: t, lambda t: f"{t // 10**9}.000",
        lambda t: f"{moment(t):%Y-%m-%dT%H:%M:%SZ}",
    ]  # fmt: skip
    tables = [
        make(source="columns", path=write("a.csv", csv_of(rows, form)), timestamp="t", cleaning=KEEP).data(
            "interactions"
        )
        for form in forms
    ]
    assert all(table.equals(tables[0]) for table in tables)
    assert sorted(tables[0]["timestamp"].to_pylist()) == sorted(t // 10**9 for *_, t in rows)


def test_the_unit_may_become_finer_late(
    make: Callable[..., Any], write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are written already are told in the finer unit, too."""
    monkeypatch.setattr("tessera.data.log.SAMPLE_ROWS", 5)
    rows = [("u", f"i{n}", (START + n) * 10**9) for n in range(300)]
    rows += [("u", f"j{n}", (START + 500) * 10**9 - n * 10**6) for n in range(300)]
    lines = [json.dumps({"user": u, "item": i, "t": t / 10**9, "x": float("nan")}) for u, i, t in rows]
    made = make(source="columns", path=write("a.jsonl", "\n".join(lines)), timestamp="t", cleaning=KEEP)
    assert [row[2] for row in made.log] == [t // 10**6 for *_, t in rows]
    assert read_clock(made.folder / "raw" / "interactions.parquet") == Clock("ms")
    assert made.raw("interactions")["row"].to_pylist() == list(range(600))
    assert histories(made) == in_order(rows)


# ---------------------------------------------------------------- what comes after reading


def test_only_equal_times_are_duplicates_and_ties(make: Callable[..., Any], write: Callable[..., str]) -> None:
    text = "user,item,t\n" + "".join(
        f"u,{item},{START}{milli:03d}\n"
        for item, milli in (("a", 0), ("a", 800), ("b", 200), ("b", 200), ("c", 200), ("d", 999))
    )
    made = make(source="columns", path=write("a.csv", text), timestamp="t", cleaning=KEEP)
    assert histories(made) == {"u": ["a", "b", "c", "a", "d"]}
    assert made.stats["funnel"][1] == {
        "step": "exact duplicates dropped", "interactions": 5, "users": 1, "items": 4
    }  # fmt: skip
    assert made.stats["tie_share"] == pytest.approx(2 / 5)


def test_days_and_cuts_of_fine_times(make: Callable[..., Any], write: Callable[..., str]) -> None:
    day = 86_400_000
    first = 1_577_836_800_000  # 2020-01-01
    rows = [("u", f"i{n}", first + n * day // 2 - (n % 2)) for n in range(8)]
    rows += [("v", f"i{n}", first + n * day // 2 - (n % 2)) for n in range(8)]
    path = write("a.csv", "user,item,t\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    section = {"source": "columns", "path": path, "timestamp": "t"}
    made = make(**section, cleaning={**KEEP, "since": "2020-01-02", "until": "2020-01-03"})
    assert histories(made)["u"] == ["i2", "i3", "i4", "i5"]
    split = {"kind": "global_temporal", "valid": "2020-01-02", "test": "2020-01-03"}
    made = make(**section, cleaning=KEEP, split=split)
    assert made.histories()["u"] == [
        ("i0", "train"),
        ("i1", "train"),
        ("i2", "valid"),
        ("i3", "history"),
        ("i4", "test"),
    ]
    made = make(**section, cleaning=KEEP, split={"kind": "global_temporal", "valid": 0.25, "test": 0.25})
    assert [part for _, part in made.histories()["u"]] == ["train"] * 4 + ["valid", "history", "test"]
    late = {"kind": "global_temporal", "valid": "2020-01-02", "test": "2021-01-01"}
    with pytest.raises(LogError, match=r"cuts at 2020-01-02T00:00:00\.000 and 2021-01-01"):
        make(**section, cleaning=KEEP, split=late)


def test_clicks_see_every_earlier_event_and_ages_in_seconds(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    rows = [("u", f"i{n % 7}", START * 1000 + n * 300) for n in range(40)]
    passed_over = [("w", f"i{n % 7}", START * 1000 + n * 300 - 1) for n in range(40)]
    text = "user,item,t,click\n" + "".join(f"{u},{i},{t},1\n" for u, i, t in rows)
    text += "".join(f"{u},{i},{t},0\n" for u, i, t in passed_over)
    made = make(source="columns", path=write("a.csv", text), timestamp="t", rating="click", cleaning=KEEP)
    told = make_samples(ImpressionSamples(source="impressions"), made.folder / "data", tmp_path / "samples")
    assert told["unit"] == "seconds"
    samples = load_samples(tmp_path / "samples")
    own = np.flatnonzero(samples.users == 1)
    assert samples.lengths[own].tolist() == list(range(40))
    batch = samples.batch(own[39:])
    assert batch.ages[0].tolist() == [(39 - n) * 300 // 1000 for n in range(39)]


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_dates_before_1970_are_times_like_others(
    unit: str, make: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    part = ".250" if unit == "ms" else ""
    days = ["1700-03-01", "1960-01-01", "1965-01-01", "1969-12-31", "1970-01-01", "2020-09-13"]
    moments = [datetime.fromisoformat(f"{day}T23:59:59{part}+00:00") for day in days]
    rows = [(user, f"i{n}", m.isoformat(), click) for user, click in ("u1", "v0") for n, m in enumerate(moments)]
    text = "user,item,t,click\n" + "".join(",".join(row) + "\n" for row in rows)
    section = {"source": "columns", "path": write("a.csv", text), "timestamp": "t", "rating": "click"}
    made = make(**section, cleaning=KEEP)
    assert made.rejected == []
    data = load_dataset(made.folder / "data")
    seconds = [m.timestamp() for m in moments]  # 1969-12-31T23:59:59 is -1
    assert data.seconds.tolist() == seconds * 2
    times = data.cases("test", times=True).times
    assert times is not None
    assert times.tolist() == seconds[:-1] * 2

    ticks = 1000 if unit == "ms" else 1
    assert last_trained(data) == Moment(round(seconds[3] * ticks), unit, True)
    assert first_held_out(data) == Moment(round(seconds[4] * ticks), unit, True)

    settings = ImpressionSamples.model_validate({"source": "impressions", "split": {"valid": 0.3, "test": 0.3}})
    make_samples(settings, made.folder / "data", tmp_path / "samples")
    samples = load_samples(tmp_path / "samples")
    last = samples.batch(np.flatnonzero(samples.users == 1)[-1:])
    assert last.ages[0].tolist() == [seconds[5] - second for second in seconds[:5]]


def test_what_was_trained_on_is_told_by_times_before_1970_too(
    make: Callable[..., Any], write: Callable[..., str]
) -> None:
    def data(name: str, rows: list[tuple[str, str]], kind: str) -> Path:
        text = "user,item,t\n" + "".join(f"u,{item},{day}\n" for item, day in rows)
        section = {"source": "columns", "path": write(name, text), "timestamp": "t"}
        return Path(make(**section, cleaning=KEEP, split={"kind": kind}).folder / "data")

    early = [("a", "1950-01-01"), ("b", "1951-01-01"), ("c", "1952-01-01"), ("d", "1953-01-01")]
    now = data("now.csv", early, "leave_one_out")  # holds c and d out
    same = data("same.csv", early, "none")
    other = data("other.csv", [(item, day.replace("195", "194")) for item, day in early], "none")
    assert seen_before(now, same) == Seen(2, 2, "u", "c")
    assert seen_before(now, other) == Seen(0, 2), "the same items at other times"


def test_numbers_of_order_are_no_dates(make: Callable[..., Any], write: Callable[..., str]) -> None:
    text = "user,item,t\n" + "".join(f"u,i{n},{n / 4}\n" for n in (3, 1, 2, 9, 7))
    section = {"source": "columns", "path": write("a.csv", text), "timestamp": "t"}
    made = make(**section, cleaning=KEEP)
    assert histories(made) == {"u": ["i1", "i2", "i3", "i7", "i9"]}
    assert (made.stats["period"], made.stats["time_unit"]) == (None, "ms")
    with pytest.raises(LogError, match="'2020-01-01' is asked of a log whose times are no dates"):
        make(**section, cleaning={**KEEP, "since": "2020-01-01"})
    split = {"kind": "global_temporal", "valid": "2020-01-01", "test": 0.1}
    with pytest.raises(LogError, match="'2020-01-01' is asked of a log whose times are no dates"):
        make(**section, cleaning=KEEP, split=split)


# ---------------------------------------------------------------- forms of one column

_FORMS: dict[str, tuple[Callable[[datetime], str], int]] = {
    # what is written, and the seconds that it can tell apart
    "ISO": (lambda m: f"{m:%Y-%m-%d %H:%M:%S}", 1),
    "ISO, T and Z": (lambda m: f"{m:%Y-%m-%dT%H:%M:%SZ}", 1),
    "ISO, offset": (lambda m: f"{m + timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}+05:30", 1),
    "ISO, offset west": (lambda m: f"{m - timedelta(hours=8):%Y-%m-%dT%H:%M:%S}-0800", 1),
    "ISO, fraction, offset": (lambda m: f"{m:%Y-%m-%dT%H:%M:%S.%f}+00:00", 1),
    "ISO, minutes": (lambda m: f"{m:%Y-%m-%d %H:%M}", 60),
    "ISO, minutes, T and Z": (lambda m: f"{m:%Y-%m-%dT%H:%MZ}", 60),
    "ISO, day": (lambda m: f"{m:%Y-%m-%d}", 86_400),
    "ISO without separators": (lambda m: f"{m:%Y%m%dT%H%M%SZ}", 1),
    "blanks": (lambda m: f"  {m:%Y-%m-%d %H:%M:%S} ", 1),
    "UTC": (lambda m: f"{m:%Y-%m-%d %H:%M:%S} UTC", 1),
    "UTC, fraction": (lambda m: f"{m:%Y-%m-%d %H:%M:%S.%f} UTC", 1),
    "Postgres": (lambda m: f"{m:%Y-%m-%d %H:%M:%S}+00", 1),
    "slashes": (lambda m: f"{m:%Y/%m/%d %H:%M:%S}", 1),
    "AM and PM": (lambda m: f"{m:%m/%d/%Y %I:%M:%S %p}", 1),
    "American": (lambda m: f"{m:%m/%d/%Y %H:%M}", 60),
    "British": (lambda m: f"{m:%d/%m/%Y %H:%M}", 60),
    "German": (lambda m: f"{m:%d.%m.%Y %H:%M:%S}", 1),
    "e-mail": (lambda m: f"{m:%a, %d %b %Y %H:%M:%S} GMT", 1),
    "e-mail, offset": (lambda m: f"{m:%a, %d %b %Y %H:%M:%S} +0000", 1),
    "in words": (lambda m: f"{m:%B %d, %Y %H:%M}", 60),
    "Apache-like": (lambda m: f"{m:%d-%b-%Y %H:%M:%S}", 1),
    "ctime": (lambda m: f"{m:%a %b %d %H:%M:%S} +0000 {m:%Y}", 1),
    "review day": (lambda m: f"{m:%m %d, %Y}", 86_400),
    "date in one number": (lambda m: f"{m:%Y%m%d}", 86_400),
    "minute in one number": (lambda m: f"{m:%Y%m%d%H%M}", 60),
    "second in one number": (lambda m: f"{m:%Y%m%d%H%M%S}", 1),
    "year and month": (lambda m: f"{m:%Y-%m}", 0),
    "month in one number": (lambda m: f"{m:%Y%m}", 0),
    "year": (lambda m: f"{m:%Y}", 0),
    "Excel": (lambda m: f"{(m - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(1):.8f}", 1),
    "Excel, comma": (lambda m: f"{(m - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(1):.8f}".replace(".", ","), 1),
    "unix, comma": (lambda m: f"{m.timestamp():.1f}".replace(".", ","), 1),
    "unix, exponent": (lambda m: f"{m.timestamp():.9e}", 1),
    "unix, mixed units": (lambda m: str(int(m.timestamp()) * (1000 if m.second % 2 else 1)), 1),
}


@pytest.mark.parametrize("form", _FORMS)
def test_forms(form: str) -> None:
    written, resolution = _FORMS[form]
    draw = random.Random(form)
    moments = [
        datetime(2019, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(3 * 365 * 86_400)) for _ in range(500)
    ]
    column = pl.Series([written(m) for m in moments])
    times = TimeColumn([column])
    found = times.read(column)
    assert found.null_count() == 0
    assert times.clock.dated
    for m, value in zip(moments, found, strict=True):
        start = m
        if not resolution:
            start = datetime(m.year, 1 if form == "year" else m.month, 1, tzinfo=UTC)
            expected = start.timestamp()
        else:
            expected = m.timestamp() // resolution * resolution
        assert times.clock.seconds(value) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "values",
    [
        ["1.600.000.000", "1.600.000.060"], ["1_600_000_000"], ["1,600,000,000"], ["-1600000000", "-1600000060"],
        ["0", "0"], ["inf", "nan", "NaN"], ["1e30"], ["9223372036854775807", "92233720368547758070"], ["50000000000"],
        ["yesterday"], ["01/02/2020", "03/04/2020"], ["2020-13-01", "2020-02-30"], ["2020-09-13 25:00:00"],
        ["13/13/2020"], ["2020-W37"], ["12:30"], ["2020-09-13 12:26:40 PST"], ["18518 days"], ["9999-12-31"],
        ["0000-00-00"],
        ["0001-01-01 00:00:00"], ["0x5f5e1000"], ["2020-09-13 12:26:40+25:00"],
        [-5.0, float("nan"), float("inf")], [0.0], [1e300],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_time_is_never_one_in_1970(values: list[Any]) -> None:
    column = pl.Series(values)
    times = TimeColumn([column])
    assert times.read(column).null_count() == len(values)
    assert all(times.reason(value).startswith(f"timestamp {value} ") for value in values)


@pytest.mark.parametrize(
    ("most", "odd"),
    [
        ("1600000000", ["0", "", "2020-09-13", "-1", "12", "20200913", "9999999999", "inf", "1970"]),
        ("2020-09-13", ["1600000000", "0", "13.09.2020", "2020", "20200913", "0000-00-00"]),
        ("20200913", ["1600000000", "0", "20200931", "2020", "99999999"]),
        ("44087.5", ["1600000000", "0", "2020-09-13", "12"]),
        ("09/13/2020", ["13/09/2020", "2020-09-13", "1600000000"]),
        ("12", ["1600000000", "1600000000000", "2020-09-13", "-3"]),
    ],
)
def test_other_forms_than_that_of_the_column_are_no_times(most: str, odd: list[str]) -> None:
    column = pl.Series([most] * 40 + odd)
    times = TimeColumn([column])
    found = times.read(column)
    assert found.null_count() == len(odd)
    assert found[40:].null_count() == len(odd)


def test_reasons_name_the_form_of_the_column(make: Callable[..., Any], write: Callable[..., str]) -> None:
    text = (
        "user,item,t\n"
        + "".join(f"u,i{n},{START + n}\n" for n in range(30))
        + "u,x,0\nu,y,2020-09-13\nu,z,\nu,w,soon\n"
    )
    cleaning = {"core": None, "max_rejected": 0.5}
    made = make(source="columns", path=write("a.csv", text), timestamp="t", cleaning=cleaning)
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [
        (32, "timestamp 0 is no time like the others (unix time)"),
        (33, "timestamp 2020-09-13 is no time like the others (unix time)"),
        (34, "timestamp is missing"),
        (35, "timestamp soon is no time"),
    ]
    with pytest.raises(
        RejectedError, match=r"timestamp 03/04/2020 may be month/day or day/month.*accepted times: unix"
    ):
        make(source="columns", path=write("b.csv", "user,item,t\nu,a,03/04/2020\nu,b,05/06/2020\n"), timestamp="t")


def test_one_bad_line_of_json_changes_no_other(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Nanoseconds keep their last digit, whether a block is read at once or line by line."""
    rows = [("u", f"i{n}", START * 10**9 + 1 + n) for n in range(200)]
    lines = [json.dumps({"user": u, "item": i, "t": t}) for u, i, t in rows]
    good = make(source="columns", path=write("a.jsonl", "\n".join(lines)), timestamp="t", cleaning=KEEP)
    lines.insert(77, '{"user": "u", "it')
    lines.append('{"user": "u", "item": "far", "t": 5}')
    bad = make(source="columns", path=write("b.jsonl", "\n".join(lines)), timestamp="t", cleaning=KEEP)
    assert good.log == bad.log == [(u, i, t, None, None) for u, i, t in rows]
    assert [(line, text[:20]) for _, line, _, text in bad.rejected] == [
        (78, '{"user": "u", "it'),
        (202, '{"user": "u", "item"'),
    ]


# ---------------------------------------------------------------- the faults that users' files had

REFUSED = {
    "time_decimal-comma", "time_thousands-dots", "time_zero", "time_negative", "time_inf-some", "time_nan-some",
    "t2_mixed-iso-unix", "t2_underscore", "t2_1970s-ms",
}  # fmt: skip
NAMES = sorted(path.stem for pattern in ("time_*.csv", "t2_*.csv") for path in FAULTS.glob(pattern))


def _table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES or ["time_iso"])
def test_faulty_files_are_read_in_order_or_refused(
    make: Callable[..., Any], data_root: Callable[..., Path], name: str
) -> None:
    path = data_root("faults", f"{name}.csv")
    section = {"source": "columns", "path": str(path), "timestamp": "timestamp", "cleaning": KEEP}
    if name in REFUSED:
        forms = "4 fields, expected 3" if name == "time_decimal-comma" else "accepted times: unix seconds"
        with pytest.raises(RejectedError, match=forms):
            make(**section)
        return
    made = make(**section)
    dropped = {
        (user, item) for line, (user, item, *_) in enumerate(_table(path), 2) if line in {r[1] for r in made.rejected}
    }
    assert len(dropped) <= 12
    expected: dict[str, list[str]] = {}
    for user, item, _ in _table(data_root("faults", "baseline.csv")):
        if (user, item) not in dropped:
            expected.setdefault(user, []).append(item)
    assert histories(made) == expected
    assert made.stats["counts"]["interactions"] == 240 - len(made.rejected)
    assert made.stats["period"][0] > START - 366 * 86_400


@pytest.mark.data
@pytest.mark.parametrize("name", ["order_ms", "order_ns", "repeat_ms"])
def test_faulty_files_keep_their_resolution(
    make: Callable[..., Any], data_root: Callable[..., Path], name: str
) -> None:
    path = data_root("faults", f"{name}.csv")
    made = make(source="columns", path=str(path), timestamp="timestamp", cleaning=KEEP)
    rows = [(user, item, int(time)) for user, item, time in _table(path)]
    assert histories(made) == in_order(rows)
    assert made.stats["counts"]["interactions"] == 240
    assert made.rejected == []


PARTS: dict[str, list[Any]] = {
    "units": [pl.Datetime("us"), pl.Datetime("ms"), pl.Datetime("ns")],
    "days": [pl.Datetime("us"), pl.Date],
    "zones": [pl.Datetime("us", "UTC"), pl.Datetime("ms")],
    "texts": [pl.Datetime("ms"), pl.String],
    "texts first": [pl.String, pl.Datetime("us")],
    "numbers": [pl.Datetime("ms"), pl.Int64],
    "nothing first": [pl.Null, pl.Datetime("ms")],
    "nothing after": [pl.Date, pl.Null],
}


@pytest.mark.parametrize("rows", [3, 70_000])
@pytest.mark.parametrize("name", PARTS)
def test_parts_may_have_times_of_several_types(name: str, rows: int, make: Callable[..., Any], tmp_path: Path) -> None:
    """Whatever the first part is, and however many rows it has: the form is found in the first rows."""
    start, expected, missing = datetime(2020, 1, 1, tzinfo=UTC), [], 0
    for part, dtype in enumerate(PARTS[name]):
        count = rows if part == 0 else 3
        days = pl.Series("time", [start + timedelta(days=n % 900) for n in range(count)]).dt.replace_time_zone(None)
        seconds = days.dt.epoch("s")
        if dtype == pl.Null:
            column, missing = pl.Series("time", [None] * count, dtype=pl.Null), count
        elif dtype == pl.String:
            column = days.dt.strftime("%Y-%m-%d %H:%M:%S")
        else:
            zone = getattr(dtype, "time_zone", None)
            column = seconds if dtype == pl.Int64 else (days.dt.replace_time_zone(zone) if zone else days).cast(dtype)
        pl.DataFrame({"user": ["u"] * count, "item": ["i"] * count, "time": column}).write_parquet(
            tmp_path / f"part-{part}.parquet"
        )
        expected += [] if dtype == pl.Null else seconds.to_list()
    made = make(
        only_raw=True,
        source="columns",
        path=str(tmp_path),
        timestamp="time",
        cleaning={"core": None, "max_rejected": 1.0},
    )
    assert [row[2] for row in made.log] == expected
    assert bool(made.rejected) == bool(missing), "rows without a time, and no others"
