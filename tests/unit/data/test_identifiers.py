"""One rule for ids, whatever file they stand in: numbers by their value, texts as they are, missing ones rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quick import quick
from tessera.data.identifiers import id_text, positions_in, twin
from tessera.data.log import RejectedError
from tessera.data.vectors import import_table
from tessera.evaluation.candidates import parse_candidates
from tessera.quantization.given import read as read_given
from tessera.settings.quantizers.given import GivenCodes
from tessera.settings.recipes.vectors import VectorsTable

LOOSE = {"core": None, "max_rejected": 0.9}
NAN = float("nan")


def ids(made: Any) -> list[tuple[str, str]]:
    return [row[:2] for row in made.log]


def written(form: str, users: list[Any], items: list[Any], write: Callable[..., str], folder: Path) -> str:
    """A log with the columns `user` and `item`."""
    if form == "parquet":
        pl.DataFrame({"user": users, "item": items}, strict=False).write_parquet(folder / "log.parquet")
        return str(folder / "log.parquet")
    if form == "json":
        rows = [json.dumps({"user": u, "item": i}) for u, i in zip(users, items, strict=True)]
        return write("log.jsonl", "\n".join(rows) + "\n")
    separator = {"csv": ",", "tsv": "\t", "recbole": "\t", "pairs": " "}[form]
    shown = [["" if v is None else str(v) for v in pair] for pair in zip(users, items, strict=True)]
    header = {"recbole": "user_id:token\titem_id:token\n", "pairs": ""}.get(
        form, separator.join(("user", "item")) + "\n"
    )
    return write(f"log.{form}", header + "".join(separator.join(row) + "\n" for row in shown))


def section(form: str, path: str) -> dict[str, Any]:
    source = {"recbole": "recbole", "pairs": "sequences"}.get(form, "columns")
    return {"source": source, "path": path, "cleaning": LOOSE}


FORMS = ["csv", "tsv", "json", "parquet", "recbole", "pairs"]


@pytest.mark.parametrize("form", FORMS)
def test_whole_numbers_written_as_floats_are_whole_numbers(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, form: str
) -> None:
    path = written(form, [0.0, 0.0, 12.0, 3.0], [1, 20, 300, 20], write, tmp_path)
    assert ids(make(only_raw=True, **section(form, path))) == [("0", "1"), ("0", "20"), ("12", "300"), ("3", "20")]


@pytest.mark.parametrize("form", FORMS)
def test_fractions_and_texts_stay_as_they_are(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, form: str
) -> None:
    path = written(form, [1.5, 2.25, 3.5], [7.5, 1.25, 0.5], write, tmp_path)
    assert ids(make(only_raw=True, **section(form, path))) == [("1.5", "7.5"), ("2.25", "1.25"), ("3.5", "0.5")]
    texts = ["1.50", "007", "1e5", "1.0", "ü.0", "+1", "1_000"]
    path = written(form, texts, list(reversed(texts)), write, tmp_path)
    assert ids(make(only_raw=True, **section(form, path))) == list(zip(texts, reversed(texts), strict=True))


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "parquet", "recbole"])
def test_missing_ids_are_rejected(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, form: str
) -> None:
    missing = [None, NAN] if form in ("json", "parquet") else [None, "NaN", "nan", "null", "None", "<NA>", "\\N", " "]
    users = [1.0, *missing, 2.0]
    path = written(form, users, [5] * len(users), write, tmp_path)
    made = make(only_raw=True, **section(form, path))
    assert ids(made) == [("1", "5"), ("2", "5")]
    assert [reason for *_, reason, _ in made.rejected] == ["user is missing"] * len(missing)
    path = written(form, [5] * len(users), users, write, tmp_path)
    made = make(only_raw=True, **section(form, path))
    assert ids(made) == [("5", "1"), ("5", "2")]
    assert [reason for *_, reason, _ in made.rejected] == ["item is missing"] * len(missing)


@pytest.mark.parametrize(
    "dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2), pl.Categorical, pl.Binary, pl.String]
)
def test_types_of_parquet(make: Callable[..., Any], tmp_path: Path, dtype: Any) -> None:
    values = [b"7", None, b"12"] if dtype == pl.Binary else ["7", None, "12"]
    users = pl.Series("user", values, dtype=pl.Binary if dtype == pl.Binary else pl.String).cast(dtype)
    pl.DataFrame({"user": users, "item": ["a", "b", "c"]}).write_parquet(tmp_path / "log.parquet")
    made = make(only_raw=True, source="columns", path=str(tmp_path / "log.parquet"), cleaning=LOOSE)
    assert ids(made) == [("7", "a"), ("12", "c")]
    assert [row[1:3] for row in made.rejected] == [(2, "user is missing")]


def test_all_missing_is_refused(make: Callable[..., Any], write: Callable[..., str], tmp_path: Path) -> None:
    path = written("parquet", [NAN, NAN], [1, 2], write, tmp_path)
    with pytest.raises(RejectedError, match="user is missing: 2"):
        make(source="columns", path=path)


def test_different_ids_of_a_file_stay_apart(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written("csv", ["1", "1.0", "2"], ["3.0", "4", "5.0"], write, tmp_path)
    with caplog.at_level("WARNING", "tessera"):
        made = make(only_raw=True, **section("csv", path))
    assert ids(made) == [("1", "3"), ("1.0", "4"), ("2", "5")]
    assert "users '1.0' and '1' both stand in the log and are kept apart" in caplog.text


@pytest.mark.parametrize(("more", "parted"), [("A12", True), ("1.5", True), ("A12", False)])
def test_a_number_written_in_two_ways_is_told_beside_other_ids(
    make: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, more: str, parted: bool
) -> None:
    rows = ["u,7.0\nu,8.0\n", f"u,7\nu,{more}\nu,v1.0\nu,v1\n"]
    for part, text in enumerate(rows if parted else ["".join(rows)]):
        (tmp_path / f"part-{part}.csv").write_text(f"user,item\n{text}")
    with caplog.at_level("WARNING", "tessera"):
        made = make(only_raw=True, source="columns", path=str(tmp_path), cleaning=LOOSE)
    assert [item for _, item in ids(made)] == ["7.0", "8.0", "7", more, "v1.0", "v1"]
    assert "items '7.0' and '7' both stand in the log and are kept apart" in caplog.text


def test_a_pair_among_many_ids_is_soon_seen(make: Callable[..., Any], write: Callable[..., str]) -> None:
    path = write("log.csv", "user,item\nu,29999\n" + "".join(f"u,{number}.0\n" for number in range(30_000)))
    made = quick(lambda: make(only_raw=True, source="columns", path=path, cleaning=LOOSE), 5)
    assert ids(made)[:2] == [("u", "29999"), ("u", "0.0")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_parts_may_write_whole_numbers_in_two_ways(
    form: str, make: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One gap in an integer column of a part is enough for pandas to make floating-point numbers of it."""
    for name, numbers in (("user", [7, 8, 9]), ("item", [1, 2, 3])):
        folder = tmp_path / name
        folder.mkdir()
        other = {"user": "item", "item": "user"}[name]
        first = pl.DataFrame({name: numbers, other: numbers})
        second = pl.DataFrame({name: [*map(float, numbers), None], other: [*numbers, 5]})
        for part, frame in enumerate((first, second, first)):
            write_part = frame.write_csv if form == "csv" else frame.write_parquet
            write_part(folder / f"part-{part}.{form}")
        made = make(only_raw=True, source="columns", path=str(folder), cleaning=LOOSE)
        assert ids(made) == 3 * [(str(n), str(m)) for n, m in zip(numbers, numbers, strict=True)]
    assert "kept apart" not in caplog.text
    pl.DataFrame({"user": ["1", "2"], "item": ["3", "3.0"]}).write_csv(folder / f"part-3.{form}")
    if form == "csv":
        made = make(only_raw=True, source="columns", path=str(folder), cleaning=LOOSE)
        assert ids(made)[-2:] == [("1", "3"), ("2", "3.0")], "one file holds both"


def test_the_whole_column_decides(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what comes after many rows that were written already."""
    monkeypatch.setattr("tessera.data.sources.csv_rows.BLOCK_BYTES", 512)
    users = [f"{n}.0" for n in range(400)]
    made = make(only_raw=True, **section("csv", written("csv", users, users, write, tmp_path)))
    assert ids(made) == [(str(n), str(n)) for n in range(400)]
    users.append("1.5")
    made = make(only_raw=True, **section("csv", written("csv", users, users[::-1], write, tmp_path)))
    assert ids(made) == list(zip(users, users[::-1], strict=True))


def test_one_bad_line_of_json_changes_no_id(make: Callable[..., Any], write: Callable[..., str]) -> None:
    values = [3, 3.0, 1e5, 1.5, 1e20, 1.5e-7, 12345678901234567890, "3.0x", "1e5", 2**53 - 1]
    lines = [json.dumps({"user": value, "item": [value, "y"], "x": 1}) for value in values] * 20
    clean = make(only_raw=True, source="columns", path=write("a.jsonl", "\n".join(lines)), cleaning=LOOSE)
    for broken in ('{"user": 3, "it', '{"user": 3, "item": NaN}', '{"user": 3, "item": ["a", NaN]}'):
        text = "\n".join([*lines[:50], broken, *lines[50:]])
        made = make(only_raw=True, source="columns", path=write("b.jsonl", text), cleaning=LOOSE)
        assert [row for row in ids(made) if row != ("3", "a")] == ids(clean)
        assert len(made.rejected) == 1
    assert ids(clean)[:3] == [("3", "3"), ("3", "y"), ("3", "3")]


@pytest.mark.parametrize("log_form", ["csv", "json", "parquet"])
@pytest.mark.parametrize("items_form", ["csv", "json", "parquet"])
@pytest.mark.parametrize("values", [([1, 2, 30], [1.0, 2.0, 30.0]), ([1.0, 1.5, 30.0], [1.0, 1.5, 30.0])], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_ids_of_two_files_meet(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, log_form: str, items_form: str, values: Any,
    turned: bool,
) -> None:  # fmt: skip
    in_log, in_items = reversed(values) if turned else values
    (tmp_path / "items").mkdir()
    titles = [f"thing {n}" for n in range(3)]
    items = written(items_form, titles, in_items, lambda name, text: write(f"items/{name}", text), tmp_path / "items")
    path = written(log_form, ["u"] * 3, in_log, write, tmp_path)
    table = {"path": items, "id": "item", "title": "user"}
    made = make(only_raw=True, items=table, **section(log_form, path))
    assert [made.items[item]["title"] for _, item in ids(made)] == titles


def test_rows_of_an_items_file_stay_apart(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """The very id comes first; a row without an id is a rejected one."""
    path = write("log.csv", "user,item\nu,1\nu,2\n")
    items = write("items.csv", "id,title\n1.0,other\n1,right\n2.0,two\n,none\nNaN,none\n007,far\n")
    table = {"path": items, "id": "id", "title": "title"}
    made = make(only_raw=True, source="columns", path=path, items=table, cleaning=LOOSE)
    assert {raw_id: item["title"] for raw_id, item in made.items.items()} == {"1": "right", "2": "two"}
    assert [row[:3] for row in made.rejected] == [("items.csv", 5, "id is missing"), ("items.csv", 6, "id is missing")]


def test_ids_of_the_source_itself_meet(make: Callable[..., Any], write: Callable[..., str]) -> None:
    inter = write("x.inter", "user_id:token\titem_id:token\n1.0\t7.0\n2.0\t8.0\n")
    told = write("x.item", "item_id:token\ttitle:token_seq\n7\tseven\n8\teight\n")
    made = make(only_raw=True, source="recbole", path=inter, items_file=told, cleaning=LOOSE)
    assert ids(made) == [("1", "7"), ("2", "8")]
    assert [made.items[item]["title"] for item in ("7", "8")] == ["seven", "eight"]


def _catalogue(make: Callable[..., Any], write: Callable[..., str]) -> Path:
    made = make(source="columns", path=write("log.csv", "user,item\nu,1\nu,2\nu,30\n"), cleaning=LOOSE)
    return Path(made.folder / "data" / "items.parquet")


@pytest.mark.parametrize("keys", [[30.0, NAN, 1.0], ["30.0", None, "1.0"], [30, None, 1]], ids=str)
def test_vectors_meet(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path, keys: list[Any], caplog: Any
) -> None:
    items = _catalogue(make, write)
    vectors = [[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]
    pq.write_table(pa.table({"raw_id": pa.array(keys), "embedding": vectors}), tmp_path / "v.parquet")
    table = VectorsTable(recipe="vectors", path=str(tmp_path / "v.parquet"))
    import_table(table, tmp_path / "v.parquet", items, tmp_path / "out.parquet")
    assert "1 rows have no raw_id and are left out; first: row 1" in caplog.text
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["item"].to_pylist() == [1, 3]
    assert found["embedding"].to_pylist() == [[3.0, 4.0], [1.0, 2.0]]


def test_codes_meet(make: Callable[..., Any], write: Callable[..., str]) -> None:
    items = _catalogue(make, write)
    source = Path(write("codes.json", json.dumps({"30.0": [1, 2], "1.0": [3, 4], "4": [5, 6], "2.5": [7, 8]})))
    found = read_given(GivenCodes(quantizer="given", path=str(source)), source, items)
    assert np.asarray(found.codes)[[1, 3], :2].tolist() == [[3, 4], [1, 2]]
    assert (np.asarray(found.codes)[2] == -1).all()


def test_candidates_meet(write: Callable[..., str]) -> None:
    path = write("candidates.txt", "7.0 1.0 30.0\n8.0 2.0 1.0\n")
    table = parse_candidates(path, ["", "7", "8"], ["", "1", "2", "30"])
    assert table.to_pylist() == [{"user": 1, "items": [1, 3]}, {"user": 2, "items": [2, 1]}]


def test_places() -> None:
    assert positions_in(["1.0", "2", "x", None, "1.5", "1.50"], ["1", "2.0", "1.5"]) == [0, 1, -1, -1, 2, -1]
    assert positions_in(["1.0", "1"], ["1"]) == [-1, 0]
    assert [twin(raw) for raw in ("1", "1.0", "-3", "0", "007", "1.00", "1e5", "1.5", "", "a.0", "-0")] == [
        "1.0", "1", "-3.0", "0.0", None, None, None, None, None, None, None
    ]  # fmt: skip
    values = [3, 3.0, 1.5, NAN, float("inf"), None, "", " 007 ", "NaN", 1e20, "ü"]
    assert [id_text(value) for value in values] == [
        "3", "3", "1.5", None, None, None, None, "007", None, "100000000000000000000", "ü"
    ]  # fmt: skip


@pytest.mark.data
def test_faulty_files(make: Callable[..., Any], data_root: Callable[..., Path]) -> None:
    users = {str(n) for n in range(30)}
    made = make(
        source="columns", path=str(data_root("faults", "jf_bad.jsonl")), timestamp="timestamp", cleaning={"core": None}
    )
    assert {user for user, _ in ids(made)} == users
    assert len(made.rejected) == 1
    path = data_root("faults", "pq_float-ids-nan.parquet")
    said = pq.read_table(path).to_pylist()
    made = make(source="columns", path=str(path), timestamp="timestamp", cleaning=LOOSE)
    good = [row for row in said if row["user"] == row["user"]]
    assert ids(made) == [(str(int(row["user"])), str(row["item"])) for row in good]
    assert len(made.rejected) == len(said) - len(good) > 0
    assert {reason for *_, reason, _ in made.rejected} == {"user is missing"}


def test_lists_that_are_merged_follow_the_rule(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Histories beside their targets: pandas wrote the column of targets with gaps as 3.0, the lists as 1 2."""
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    text = (
        head + "a\t1 2 3\t4.0\t1600000002.5\na\t1 2\t3.0\t1600000002.25\nNaN\t1\t2.0\t1600000001\nb\t1\t\t1600000001\n"
    )
    made = make(only_raw=True, source="recbole", path=write("a.inter", text), cleaning=LOOSE)
    assert ids(made) == [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]
    assert [row[1:3] for row in made.rejected] == [(4, "user is missing"), (5, "item is missing")]
    dated = head + "a\t1 2 3\t4\t2020-09-13\na\t1 2\t3\t2020-09-12T10:00Z\nb\t1\t2\tyesterday\n"
    made = make(only_raw=True, source="recbole", path=write("b.inter", dated), cleaning=LOOSE)
    assert ids(made) == [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")]
    assert [row[1] for row in made.rejected] == [4]


def test_lists_by_user_as_json_follow_the_rule(make: Callable[..., Any], write: Callable[..., str]) -> None:
    path = write("a.json", '{"a": [1, 2.0, null, 3], "NaN": [1], "b": [1.5]}')
    made = make(only_raw=True, source="columns", path=path, cleaning=LOOSE)
    assert ids(made) == [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1.5")]
    assert sorted(row[1:3] for row in made.rejected) == [(1, "item is missing"), (2, "user is missing")]
