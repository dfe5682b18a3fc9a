"""Codes that exist already: published files, and files that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quick import quick
from tessera.artifacts.tables import write_table
from tessera.data.given_codes import read_codes
from tessera.quantization.conflicts import collisions
from tessera.quantization.given import GivenCodesError
from tessera.quantization.given import read as read_given
from tessera.settings.quantizers.given import GivenCodes


def items_file(folder: Path, raw_ids: list[str]) -> Path:
    count = len(raw_ids)
    columns = {
        "item": pa.array(range(1, count + 1), pa.int32()),
        "raw_id": raw_ids,
        "title": pa.array([None] * count, pa.string()),
        "attributes": pa.array([[]] * count, pa.map_(pa.string(), pa.string())),
        "image": pa.array([None] * count, pa.string()),
    }
    write_table(folder / "items.parquet", pa.table(columns), "items")
    return folder / "items.parquet"


def codes_file(folder: Path, value: Any) -> Path:
    path = folder / "codes.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def read(folder: Path, value: Any, raw_ids: list[str], **settings: Any) -> Any:
    given = GivenCodes(path="codes.json", **settings)
    return read_given(given, codes_file(folder, value), items_file(folder, raw_ids))


def test_codes_go_by_raw_id(tmp_path: Path) -> None:
    value = {"c": ["<a_3>", "<b_0>"], "a": ["<a_1>", "<b_7>"], "unknown": ["<a_11>", "<b_2>"]}
    found = read(tmp_path, value, ["a", "b", "c"])
    assert found.codes.tolist() == [[-1, -1], [1, 7], [-1, -1], [3, 0]]
    assert found.parts[0].sizes == (12, 8), "as large as the whole file says"
    assert not found.parts[0].extra


def test_a_byte_order_mark_is_no_part_of_the_codes(tmp_path: Path) -> None:
    """What is read before anything runs takes one; so does the job."""
    value = '{"c": [3], "a": [1]}'
    plain, marked = (read(tmp_path, mark + value, ["a", "c"]).codes.tolist() for mark in ("", "\ufeff"))
    assert marked == plain == [[-1], [1], [3]]


def test_the_largest_code_and_zeros_before_a_number(tmp_path: Path) -> None:
    found = read(tmp_path, {"a": [2**20 - 1, "<b_0000000000003>"], "c": [0, "000"]}, ["a", "c"])
    assert found.codes.tolist() == [[-1, -1], [2**20 - 1, 3], [0, 0]]


def test_an_offset_makes_no_two_ids_one(tmp_path: Path) -> None:
    with pytest.raises(GivenCodesError, match=r"codes\.json: the ids '1' and '01' are one number, 1; with an 'offset'"):
        read(tmp_path, {"1": [1], "01": [2]}, ["1", "2"], offset=1)


def test_numbers_and_an_offset(tmp_path: Path) -> None:
    found = read(tmp_path, {"0": [1, 2], "1": [1, 2], "4": [0, 0]}, ["1", "2", "9"], offset=1, conflicts="extra_level")
    assert found.codes.tolist() == [[-1] * 3, [1, 2, 0], [1, 2, 1], [-1] * 3]
    assert found.parts[0].sizes == (2, 3, 2)
    assert found.parts[0].extra
    assert found.parts[0].meaningful == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", r"codes\.json: is no JSON"),
        ([1], "expected one object of raw item ids"),
        ({}, "expected one object of raw item ids"),
        ({"a": [1], "b": [1, 2]}, "id 'b' has 2 codes, but id 'a' has 1"),
        ({"a": []}, "id 'a' has .*, expected a list of codes"),
        ({"a": {"b": 1}}, "id 'a' has .*, expected a list of codes"),
        ({"a": ["<a_x>"]}, "id 'a' has the code '<a_x>'"),
        ({"a": [True]}, "id 'a' has the code True"),
        ({"a": [-1]}, "id 'a' has the code -1"),
        (
            {"a": [1], "b": [99999999999999999999]},
            "id 'b' has the code 9{20}, expected a number from 0 to",
        ),
        ({"a": [1], "b": [2**20]}, "id 'b' has the code 1048576, expected a number from 0 to 1,048,575"),
        ({"a": ["<a_1048576>"]}, "id 'a' has the code '<a_1048576>', expected a number from 0 to 1,048,575"),
        ({"a": ["9" * 5000]}, "id 'a' has the code '9+, expected a number from 0 to 1,048,575"),
        ({"a": [1.5]}, r"id 'a' has the code 1\.5"),
        ('{"a": [1], "a": [2]}', "names the id 'a' twice"),
        ('{"a": ' + "[" * 60_000, "but it is nested too deeply"),
        ('{"a": [1], "b": {"c": ' + "[" * 60_000 + "]" * 60_000 + "}}", "but it is nested too deeply"),
        ({"0": [1], "1": [2]}, "meets 0 of 3 items .*: 'a', 'b', 'c'; in the file alone: '0', '1'; .*'offset'"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(GivenCodesError, match=message):
        read(tmp_path, value, ["a", "b", "c"])


def test_an_id_that_stands_twice_is_soon_seen(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text("{" + "".join(f'"item{number}": [1], ' for number in range(40_000)) + '"item39999": [1]}')

    def refused() -> None:
        with pytest.raises(GivenCodesError, match="names the id 'item39999' twice"):
            read_codes(path)

    quick(refused, 5)


def test_levels_are_named_alike_for_all_items(tmp_path: Path) -> None:
    """A code counts by its place, so `<b_3>` in the first one is another item's second code."""
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({"1": ["<a_4>", "<b_3>"], "2": ["<b_3>", "<a_4>"]}))
    with pytest.raises(GivenCodesError, match="code 1 of id '2' is one of 'b', but that of id '1' is one of 'a'"):
        read_codes(path)
    for codes in (["<a_3", "<b_1>"], ["a_3>", "<b_1>"]):
        path.write_text(json.dumps({"1": codes}))
        with pytest.raises(GivenCodesError, match="has the code"):
            read_codes(path)


def test_ids_that_are_no_numbers_take_no_offset(tmp_path: Path) -> None:
    with pytest.raises(GivenCodesError, match="id 'a' is no number"):
        read(tmp_path, {"a": [1]}, ["a"], offset=1)


@pytest.mark.data
def test_letter_beauty(tmp_path: Path, data_root: Callable[..., Path]) -> None:
    source = data_root("letter-beauty-semantic-ids", "Beauty.index.json")
    items = items_file(tmp_path, [str(raw) for raw in range(1, 12_102)])
    found = read_given(GivenCodes(path="", offset=1), source, items)
    assert found.codes.shape == (12_102, 4)
    assert found.codes[1].tolist() == [183, 70, 232, 6]
    assert collisions(found.codes[1:]) == 13
    apart = read_given(GivenCodes(path="", offset=1, conflicts="extra_level"), source, items)
    assert collisions(apart.codes[1:]) == 0
    assert apart.parts[0].extra


@pytest.mark.data
def test_minionerec_industrial(tmp_path: Path, data_root: Callable[..., Path]) -> None:
    source = data_root("amazon-industrial-minionerec", "index", "Industrial_and_Scientific.index.json")
    count = len(json.loads(source.read_text(encoding="utf-8")))
    found = read_given(GivenCodes(path=""), source, items_file(tmp_path, [str(raw) for raw in range(count)]))
    codes = found.codes[1:]
    assert round(collisions(codes) / count, 5) == 0.00434
    assert [len(np.unique(column)) for column in codes.T] == [48, 256, 256]
    assert [len(np.unique(codes[:, : level + 1], axis=0)) for level in range(3)] == [48, 2295, 3670]


def test_codes_of_few_items_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, {"1": [0], "02": [1], "x": [0]}, ["1", "2", "3"], conflicts="none")
    assert "WARNING" in caplog.text
    assert "meets 1 of 3 items of the dataset (33.3%); not met: '2', '3'; in the file alone: 'x', '02'" in caplog.text
    assert "1 more would meet without the zeros before them" in caplog.text
