"""Keys and values of JSON that are rare: keys with names of ours, empty ratings, users without a list."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tessera.data.files import DataFileError

Make = Callable[..., Any]
Write = Callable[[str, str | bytes], str]
LOOSE = {"max_rejected": 0.9, "core": None}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_a_key_may_be_called_line(make: Make, write: Write, broken: bool, lists: bool) -> None:
    rows = [{"row": "a", "line": ["x"] if lists else "x"}, {"row": "b", "line": ["y"] if lists else 7}]
    path = write("log.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "{bad\n" * broken)
    made = make(only_raw=True, source="columns", path=path, user="row", item="line", cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("a", "x"), ("b", "y" if lists else "7")]
    assert [row[1] for row in made.rejected] == [3] * broken
    if not lists:
        made = make(only_raw=True, source="columns", path=path, user="line", item="row", cleaning=LOOSE)
        assert [row[:2] for row in made.log] == [("x", "a"), ("7", "b")]


@pytest.mark.parametrize("first", ["4.5", '"4.5"', "4"])
def test_empty_ratings_are_none(make: Make, write: Write, first: str) -> None:
    ratings = [first, '""', '" "', "null", '"x"', "3"]
    text = "".join(f'{{"user": "u{n}", "item": "i", "r": {rating}}}\n' for n, rating in enumerate(ratings))
    path = write("log.jsonl", text)
    made = make(only_raw=True, source="columns", path=path, rating="r", cleaning=LOOSE)
    assert [(row[0], row[3]) for row in made.log] == [
        ("u0", float(first.strip('"'))), ("u1", None), ("u2", None), ("u3", None), ("u5", 3.0)
    ]  # fmt: skip
    assert [row[1] for row in made.rejected] == [5]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("layout", ["pairs", "lines"])
def test_users_without_a_list_are_rejected_rows(make: Make, write: Write, indent: int | None, layout: str) -> None:
    users: dict[str, Any] = {"a": [1, 2], "b": None, "c": "x", "d": {"e": 1}, "user": [4, 5]}
    path = write("log.json", json.dumps(users, indent=indent))
    made = make(only_raw=True, source="sequences", path=path, layout=layout, cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("a", "1"), ("a", "2"), ("user", "4"), ("user", "5")]
    assert [row[1:] for row in made.rejected] == [
        (2, "not a list of items", "b: None"),
        (3, "not a list of items", "c: x"),
        (4, "not a list of items", "d: [('e', 1)]"),
    ]


def test_lists_by_user_that_break_off_are_refused(make: Make, write: Write) -> None:
    with pytest.raises(DataFileError, match=r"log\.json: not JSON"):
        make(only_raw=True, source="sequences", path=write("log.json", '{"a": [1, 2], "b": [3, '), layout="lines")


def test_texts_may_begin_with_a_brace(make: Make, write: Write) -> None:
    for one, other in (("{a}", "{b}"), ("{}", "{c}"), ('{"b"}', '{"c"}')):
        path = write("log.txt", f"{one} 1 2\n{other} 3 4\n")
        made = make(only_raw=True, source="sequences", path=path, layout="lines", cleaning=LOOSE)
        assert [row[:2] for row in made.log] == [(one, "1"), (one, "2"), (other, "3"), (other, "4")]


@pytest.mark.parametrize("layout", ["lines", "pairs"])
@pytest.mark.parametrize("item", ["item", "items"])
def test_rows_are_no_lists_by_user(make: Make, write: Write, item: str, layout: str) -> None:
    """One user called `items` would have done everything, the others be some rejected rows."""
    lines = "".join(f'{{"user": "u{user}", "{item}": {list(range(30))}}}\n' for user in range(40))
    with pytest.raises(
        DataFileError, match=rf"the objects are rows with the keys 'user', '{item}', expected users and"
    ):
        make(only_raw=True, source="sequences", path=write("log.json", lines), layout=layout)


def test_a_user_may_go_on_in_the_next_object(make: Make, write: Write) -> None:
    path = write("log.json", '{"u": [1, 2]}\n{"u": [3]}\n{"v": [4], "w": [5]}\n')
    made = make(only_raw=True, source="sequences", path=path, layout="lines")
    assert [row[:2] for row in made.log] == [("u", "1"), ("u", "2"), ("u", "3"), ("v", "4"), ("w", "5")]
