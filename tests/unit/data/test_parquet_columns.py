"""Columns of Parquet files in all the types in which they come, of logs and of tables of items."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Make = Callable[..., Any]
LOOSE = {"max_rejected": 0.9, "core": None}
# as texts and bytes that a program wrote without a look at them
BROKEN_TEXT = pa.array([b"a", b"\xffb", b"c"]).view(pa.string())


def written(path: Path, columns: dict[str, Any], **more: Any) -> str:
    pq.write_table(pa.table(columns), path, **more)
    return str(path)


def test_bytes_of_items_are_texts(make: Make, tmp_path: Path) -> None:
    log = written(tmp_path / "log.parquet", {"user": [1, 2, 3], "item": ["a", "b", "c"]})
    columns = {
        "id": pa.array([b"a", b"b", b"c"]).dictionary_encode(),
        "title": [b"Lamp", b"Zo\xc3\xa9", b"caf\xe9"],
        "fixed": pa.array([b"red", b"tan", b"tin"], pa.binary(3)),
        "tags": [[b"x", b"y"], [b"\xff"], None],
        "named": BROKEN_TEXT,
    }
    path = written(tmp_path / "items.parquet", columns)
    items = {"path": path, "id": "id", "title": "title", "text": ["fixed", "tags", "named"]}
    made = make(only_raw=True, source="columns", path=log, items=items, cleaning=LOOSE)
    assert [made.items[raw]["title"] for raw in "abc"] == ["Lamp", "Zoé", "caf\ufffd"]
    assert made.items["a"]["attributes"] == {"fixed": "red", "tags": "x, y", "named": "a"}
    assert made.items["b"]["attributes"] == {"fixed": "tan", "tags": "\ufffd", "named": "\ufffdb"}
    assert made.rejected == []


@pytest.mark.parametrize("ids", [pa.array([b"a", b"\xffb", b"c"]), BROKEN_TEXT])
def test_items_whose_ids_are_no_text_are_rejected(make: Make, tmp_path: Path, ids: pa.Array) -> None:
    log = written(tmp_path / "log.parquet", {"user": [1, 2], "item": ["a", "c"]})
    items = {
        "path": written(tmp_path / "items.parquet", {"id": ids, "title": list("ABC")}),
        "id": "id",
        "title": "title",
    }
    made = make(only_raw=True, source="columns", path=log, items=items, cleaning=LOOSE)
    assert [made.items[raw]["title"] for raw in "ac"] == ["A", "C"]
    assert [row[:3] for row in made.rejected] == [("items.parquet", 2, "id is not utf-8 text")]


@pytest.mark.parametrize(
    "ids", [pa.array([b"a", b"\xffb", b"c"]), BROKEN_TEXT, pa.array([[b"a"], [b"d", b"\xff"], [b"c"]])]
)
def test_rows_whose_bytes_are_no_text_are_rejected(make: Make, tmp_path: Path, ids: pa.Array) -> None:
    path = written(tmp_path / "log.parquet", {"user": ["u", "v", "w"], "item": ids}, row_group_size=1)
    made = make(only_raw=True, source="columns", path=path, cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("u", "a"), ("w", "c")]
    (rejected,) = made.rejected
    assert rejected[:3] == ("log.parquet", 2, "item is not utf-8 text")
    assert rejected[3].startswith("v ")
    assert "\ufffd" in rejected[3]


def test_times_of_the_old_form_do_not_wrap(make: Make, tmp_path: Path) -> None:
    times = [datetime.datetime(2020, 1, 1), datetime.datetime(3000, 1, 1), datetime.datetime(1500, 1, 1)]
    columns = {"user": list("uvw"), "item": list("abc"), "t": pa.array(times, pa.timestamp("us"))}
    path = written(tmp_path / "log.parquet", columns, use_deprecated_int96_timestamps=True)
    made = make(only_raw=True, source="columns", path=path, timestamp="t", cleaning=LOOSE)
    assert [row[:3] for row in made.log] == [("u", "a", 1577836800)]
    assert [row[2] for row in made.rejected] == [f"timestamp {time} is no time" for time in times[1:]]


@pytest.mark.parametrize("zone", ["+05:30", "Europe/Berlin", "Middle/Earth", None])
def test_zones_of_times(make: Make, tmp_path: Path, zone: str | None) -> None:
    times = pa.array([1_600_000_000, 1_600_000_001]).cast(pa.timestamp("s")).cast(pa.int64())
    columns = {"user": ["u", "v"], "item": ["a", "b"], "t": times.cast(pa.timestamp("s", zone))}
    path = written(tmp_path / "log.parquet", columns)
    made = make(only_raw=True, source="columns", path=path, timestamp="t", cleaning=LOOSE)
    assert [row[2] for row in made.log] == [1_600_000_000, 1_600_000_001]


DECIMALS = [Decimal("7.00"), Decimal("8.00"), Decimal("12.00")]


@pytest.mark.parametrize("kind", [pa.decimal32(5, 2), pa.decimal128(5, 2), pa.decimal256(50, 2)])
@pytest.mark.parametrize("more", [None, Decimal("1.50")])
def test_decimals_meet_decimals(make: Make, tmp_path: Path, kind: pa.DataType, more: Decimal | None) -> None:
    ids = pa.array([*DECIMALS, *([more] if more else [])], kind)
    log = written(tmp_path / "log.parquet", {"user": list("uvwx")[: len(ids)], "item": ids})
    items = {"path": written(tmp_path / "items.parquet", {"id": ids, "title": list("ABCD")[: len(ids)]})}
    made = make(
        only_raw=True, source="columns", path=log, items={**items, "id": "id", "title": "title"}, cleaning=LOOSE
    )
    named = ["7.0", "8.0", "12.0", "1.50"] if more else ["7", "8", "12"]
    assert {raw: item["title"] for raw, item in made.items.items()} == dict(zip(named, "ABCD", strict=False))


def test_no_number_is_no_picture(make: Make, tmp_path: Path) -> None:
    log = written(tmp_path / "log.parquet", {"user": [1, 2], "item": ["a", "b"]})
    (tmp_path / "pictures").mkdir()
    for name in ("nan.jpg", "b.jpg"):
        (tmp_path / "pictures" / name).write_bytes(b"")
    path = written(tmp_path / "items.parquet", {"id": ["a", "b"], "image": [float("nan"), float("nan")]})
    items = {"path": path, "id": "id", "image": "image"}
    made = make(
        only_raw=True, source="columns", path=log, images=str(tmp_path / "pictures"), items=items, cleaning=LOOSE
    )
    assert [made.items[raw]["image"] for raw in "ab"] == [None, "b.jpg"]


def test_numbers_in_single_precision_are_texts_as_they_were_written(make: Make, tmp_path: Path) -> None:
    prices = [19.99, 0.1, None, float("nan"), 5.0, 1e20]
    ids = [0.1, 0.2, 0.3, 4.0, 5.0, 6.0]
    log = {"user": list("uvwxyz"), "item": pa.array(ids, pa.float32())}
    about = {
        "id": pa.array(ids, pa.float32()),
        "price": pa.array(prices, pa.float32()),
        "sizes": pa.array([[0.1, 2.5]] * 6, pa.list_(pa.float32())),
    }
    items = {"path": written(tmp_path / "items.parquet", about), "id": "id", "text": ["price", "sizes"]}
    made = make(only_raw=True, source="columns", path=written(tmp_path / "log.parquet", log), items=items)
    assert sorted(made.items) == ["0.1", "0.2", "0.3", "4.0", "5.0", "6.0"]
    told = [made.items[raw_id]["attributes"].get("price") for raw_id in sorted(made.items)]
    assert told == ["19.99", "0.1", None, None, "5.0", "1e+20"]
    assert {item["attributes"]["sizes"] for item in made.items.values()} == {"0.1, 2.5"}
