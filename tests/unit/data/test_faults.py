"""Small failing inputs from real users: what reading each of them gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tessera.data.files import DataFileError
from tessera.data.log import RejectedError
from tessera.data.sources.base import source
from tessera.settings.sources.base import Dataset

Root = Callable[..., Path]
Make = Callable[..., Any]


def columns(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "columns", "path": str(path), "timestamp": "timestamp", **more}


def check(**section: Any) -> None:
    settings = TypeAdapter[Any](Dataset).validate_python(section)
    source(settings).check(settings)


@pytest.mark.parametrize("name", ["cr.csv", "log.csv.bz2", "j_array.jsonl"])
def test_the_same_log_in_other_forms(data_root: Root, make: Make, name: str) -> None:
    plain = make(only_raw=True, **columns(data_root("faults", "baseline.csv")))
    other = make(only_raw=True, **columns(data_root("faults", name)))
    assert len(plain.log) == 240
    assert other.log == plain.log
    assert other.rejected == []


def test_latin1(data_root: Root, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    path = data_root("faults", "latin1.csv")
    made = make(only_raw=True, **columns(path))
    raw = [line.split(",")[:2] for line in path.read_bytes().decode("latin-1").splitlines()[1:]]
    assert [list(row[:2]) for row in made.log] == raw
    assert not "".join(map("".join, raw)).isascii()
    assert "read as cp1252" in caplog.text
    made = make(only_raw=True, encoding="utf-8", **columns(path))
    assert {reason for _, _, reason, _ in made.rejected} == {"item is not utf-8 text"}
    assert len(made.log) + len(made.rejected) == 240


@pytest.mark.parametrize(("name", "some"), [("id_bracket-one.csv", "[NEW] i3"), ("id_bracket-list-like.csv", "[1]")])
def test_ids_that_look_like_lists(data_root: Root, make: Make, name: str, some: str) -> None:
    made = make(only_raw=True, **columns(data_root("faults", name)))
    assert len(made.log) == 240
    assert sum(item == some for _, item, *_ in made.log) == 6
    assert made.rejected == []


def test_a_stray_quote_costs_one_row(data_root: Root, make: Make) -> None:
    path = data_root("faults", "stray2.csv")
    lines = path.read_text().splitlines()
    made = make(only_raw=True, **columns(path))
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [(22, "a quote is not closed on its line")]
    rest = [tuple(line.split(",")[:2]) for number, line in enumerate(lines[1:], 2) if number != 22]
    assert [row[:2] for row in made.log] == rest
    # nor is what the table of items tells of others lost
    told = make(only_raw=True, items={"path": str(path), "id": "item", "title": "comment"}, **columns(path))
    assert set(told.items) == {item for _, item, *_ in told.log}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cut.csv.gz", "the gzip stream is damaged or breaks off"),
        ("trunc.parquet", "damaged or incomplete Parquet"),
        ("pq_duration.parquet", r"column 'timestamp' \(for timestamp\) holds duration\[s\], expected numbers"),
    ],
)
def test_damaged_files_are_named_before_and_while_they_are_read(
    data_root: Root, make: Make, name: str, expected: str
) -> None:
    path = data_root("faults", name)
    for act in (check, make):
        with pytest.raises(DataFileError, match=f"{name}: {expected}") as caught:
            act(**columns(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", ["amazon_2014", "yelp", "sequences", "recbole", "columns"])
@pytest.mark.parametrize("name", ["cut.csv.gz", "trunc.parquet"])
def test_every_source_names_a_damaged_file(data_root: Root, make: Make, reader: str, name: str) -> None:
    path = data_root("faults", name)
    for act in (check, make):
        with pytest.raises(DataFileError, match=name):
            act(source=reader, path=str(path))


def test_items_in_other_forms(data_root: Root, make: Make) -> None:
    log = columns(data_root("faults", "baseline.csv"))
    for name, title in (("items_utf16.csv", "Thing 0"), ("items_json-array.json", "n")):
        items = {"path": str(data_root("faults", name)), "id": "sku", "title": "name", "text": ["brand"]}
        made = make(only_raw=True, items=items, **log)
        assert made.items["i0"]["title"] == title
        assert len(made.items) == 20
    items = {"path": str(data_root("faults", "items_gz-cut.csv.gz")), "id": "sku"}
    with pytest.raises(DataFileError, match=r"items_gz-cut\.csv\.gz: the gzip stream is damaged or breaks off"):
        make(items=items, **log)


def test_histories_of_recbole_that_do_not_fit_together_are_told(data_root: Root, make: Make) -> None:
    path = data_root("faults", "rb_item_id_list.inter")
    with pytest.raises(RejectedError, match="does not continue the samples before it"):
        make(source="recbole", path=str(path))


def test_lists_by_user_as_json(data_root: Root, make: Make) -> None:
    """LETTER's Beauty: the counts that its README states."""
    path = str(data_root("letter-beauty-semantic-ids", "Beauty.inter.json"))
    made = make(only_raw=True, source="columns", path=path)
    assert [row[:2] for row in made.log[:7]] == [("0", str(item)) for item in range(5)] + [("1", "5"), ("1", "6")]
    assert len(made.log) == 198_502
    assert len({user for user, *_ in made.log}) == 22_363
    assert make(only_raw=True, source="sequences", path=path).log == made.log
