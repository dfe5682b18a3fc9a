"""Joins that meet nothing or little are told, wherever ids of a file are joined to those of a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_vectors import imported

from tessera.artifacts.tables import ArtifactError
from tessera.data.files import DataFileError
from tessera.data.joins import Join
from tessera.data.log import RejectedError

LOOSE = {"core": None, "max_rejected": 1.0}


def told(known: list[str], given: list[str], caplog: pytest.LogCaptureFixture) -> str:
    join = Join(known)
    for raw_id in given:
        join.meet(raw_id)
    caplog.clear()
    with caplog.at_level("INFO"):
        join.tell("file", "items", ValueError)
    return caplog.text


def test_share_and_three_examples_of_each_side(caplog: pytest.LogCaptureFixture) -> None:
    known = [str(n) for n in range(10)]
    assert "WARNING" not in told(known, known, caplog)
    text = told(known, [*known[:5], "x", "yy", "zzz", "zzzz"], caplog)
    assert (
        "file: meets 5 of 10 items (50.0%); not met: '5', '6', '7', ...; in the file alone: 'x', 'yy', 'zzz', ..."
        in text
    )
    assert "WARNING" not in text
    assert "file: meets 4 of 10 items" in told(known, known[:4], caplog)
    with pytest.raises(ValueError, match="meets 0 of 10 items"):
        told(known, ["x"], caplog)
    assert told(known, [], caplog) == told([], ["x"], caplog) == ""


@pytest.mark.parametrize(
    ("known", "given", "way"),
    [
        ("7", "007", "without the zeros before them"),
        ("007", "7", "without the zeros before them"),
        ("7", "7.0", "without '.0' behind them"),
        ("ab", "AB", "in one case"),
        ("ab", "ab ", "without blanks around them"),
        ("é", "e\u0301", "in one Unicode form"),
        ("i7", "sku-7", "without what stands before their last digits"),
    ],
)
def test_what_would_make_ids_meet(known: str, given: str, way: str) -> None:
    join = Join({known, "another"})
    join.meet(given)
    with pytest.raises(ValueError, match=f"1 more would meet {way}"):
        join.tell("file", "items", ValueError)


def shop(write: Callable[..., str], ids: list[str]) -> dict[str, Any]:
    rows = "".join(f"u{n % 3},{raw_id},{n}\n" for n, raw_id in enumerate(ids))
    return {"source": "columns", "path": write("log.csv", f"user,item,t\n{rows}"), "timestamp": "t", "cleaning": LOOSE}


def test_items_files_that_meet_nothing(
    make: Callable[..., Any], write: Callable[..., str], data_root: Callable[..., Path]
) -> None:
    for name, ids in (("items_none-match.csv", "i{}"), ("items_zeros-mismatch.csv", "{}")):
        section = shop(write, [ids.format(n) for n in range(20)])
        path = str(data_root("faults", name))
        with pytest.raises(DataFileError) as caught:
            make(**section, items={"path": path, "id": "sku", "title": "name"})
        assert f"{path}: meets 0 of 20 items of the log (0.0%); not met: " in str(caught.value)
        assert "20 more would meet without" in str(caught.value)
        assert "is 'sku' (items.id) the column of the log's ids?" in str(caught.value)


def test_an_items_file_without_items_is_an_error(make: Callable[..., Any], write: Callable[..., str]) -> None:
    section = shop(write, ["1", "2"])
    with pytest.raises(DataFileError, match=r"items\.csv: holds no item with an id in 'id'"):
        make(**section, items={"path": write("items.csv", "id,name\n,x\n"), "id": "id", "title": "name"})
    strict = {**section, "cleaning": {"core": None}}
    with pytest.raises(RejectedError, match=r"items\.csv: 1 of 1 rows .*wrong number of fields"):
        make(**strict, items={"path": write("items.csv", "id,name\n1\n"), "id": "id", "title": "name"})
    tip = jsonl({"user_id": "A", "business_id": "b", "date": "2020-01-01"})
    with pytest.raises(DataFileError, match="b: holds no items"):
        make(only_raw=True, source="yelp", path=write("t", tip), businesses=write("b", "\n"), cleaning=LOOSE)


def test_little_is_a_warning(
    make: Callable[..., Any], write: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    section = shop(write, [str(n) for n in range(10)])
    items = write("items.csv", "id,name\n" + "".join(f"{n},T{n}\n" for n in range(4)) + "0004,far\n0005,far\n")
    made = make(**section, items={"path": items, "id": "id", "title": "name"})
    assert made.stats["title_share"] == 0.4
    assert "WARNING" in caplog.text
    assert "meets 4 of 10 items of the log (40.0%)" in caplog.text
    assert "2 more would meet without the zeros before them" in caplog.text


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_files_of_every_source_are_joined(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    review = {"reviewerID": "A", "asin": "0001", "unixReviewTime": 9, "overall": 5.0}
    new = {"user_id": "A", "parent_asin": "0001", "timestamp": 9, "rating": 5.0}
    tip = {"user_id": "A", "business_id": "0001", "date": "2020-01-01"}
    inter = "user_id:token\titem_id:token\nA\t0001\n"
    write("ml/ratings.dat", "1::0001::5::9\n")
    write("ml/movies.dat", "1::Film (1999)::Drama\n")
    write("one/valid/x.csv", "user_id,history_item_id,item_id\nu,\"['0002']\",0001\n")
    write("one/index/x.item.json", json.dumps({"1": {"title": "T"}}))
    write("movies.dat", "1::Film (1999)::Drama\n")
    described = write("x.item", "item_id:token\tc\n1\tC\n")
    sections: list[dict[str, Any]] = [
        {"source": "amazon_2018", "path": write("r", jsonl(review)), "metadata": write("m", jsonl({"asin": "1"}))},
        {"source": "amazon_2014", "path": write("r", jsonl(review)), "metadata": write("m14", "{'asin': '1'}\n")},
        {"source": "amazon_2023", "path": write("n", jsonl(new)), "metadata": write("o", jsonl({"parent_asin": "1"}))},
        {"source": "yelp", "path": write("t", jsonl(tip)), "businesses": write("b", jsonl({"business_id": "1"}))},
        {"source": "recbole", "path": write("x.inter", inter), "items_file": described},
        {"source": "movielens", "path": str(tmp_path / "ml")},
        {"source": "minionerec", "path": str(tmp_path / "one")},
        {"source": "sequences", "path": write("s", "u 0001\n"), "films": str(tmp_path / "movies.dat")},
    ]
    for section in sections:
        with pytest.raises(DataFileError, match=r"meets 0 of \d items of the log .*; in the file alone: '1'"):
            make(only_raw=True, cleaning=LOOSE, **section)


def test_a_movielens_folder_without_films(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write("ml/ratings.dat", "1::10::5::9\n")
    assert make(only_raw=True, source="movielens", path=str(tmp_path / "ml")).items == {}
    assert "no movies.dat beside ratings.dat; films have no titles" in caplog.text


def test_vectors_that_meet_little(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = pa.table({"raw_id": ["01", "2", "x"], "embedding": [[1.0], [2.0], [3.0]]})
    pq.write_table(vectors, tmp_path / "v.parquet")
    imported(tmp_path, tmp_path / "v.parquet", ["1", "2", "3"])
    assert "WARNING" in caplog.text
    assert "meets 1 of 3 items (33.3%); not met: '1', '3'; in the file alone: 'x', '01'" in caplog.text
    assert "1 more would meet without the zeros before them" in caplog.text
    with pytest.raises(
        ArtifactError, match=r"v\.parquet: meets 0 of 1 items .*not met: '1'; in the file alone: '2', 'x'"
    ):
        imported(tmp_path, tmp_path / "v.parquet", ["1"])
    pq.write_table(pa.table({"item": [2], "embedding": [[3.0]]}), tmp_path / "dense.parquet")
    caplog.clear()
    imported(tmp_path, tmp_path / "dense.parquet", ["a", "b", "c"])
    assert "WARNING" in caplog.text
    assert "meets 1 of 3 items (33.3%); not met: 'a', 'c'" in caplog.text
    np.save(tmp_path / "v.npy", np.zeros((2, 3)))
    with pytest.raises(ArtifactError, match=r"2 of 3 items are none: '2', '1\.0'"):
        imported(tmp_path, tmp_path / "v.npy", ["1", "2", "1.0"])
