"""One log in all the forms in which files come, over every source that reads them; each must give the same rows."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from tessera.data import packed
from tessera.data.files import DataFileError, parts
from tessera.data.log import RejectedError
from tessera.data.packed import text_form
from tessera.data.sources import csv_rows, json_lines
from tessera.data.sources.base import source
from tessera.data.sources.json_forms import json_blocks
from tessera.settings.sources.base import Dataset

Make = Callable[..., Any]
Write = Callable[[str, str | bytes], str]
LOOSE = {"max_rejected": 0.9, "core": None}
ROWS = [(f"u{n % 7}", f"Zoé{n % 5}", 1_400_000_000 + 60 * n, float(n % 5 + 1)) for n in range(40)]


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", data)
        archive.writestr("__MACOSX/._inner.txt", b"junk")
    return buffer.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    "zip": zipped,
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]


def _json(user: str, item: str, time: str, rating: str) -> str:
    return "".join(json.dumps({user: u, item: i, time: t, rating: r}, ensure_ascii=False) + "\n" for u, i, t, r in ROWS)


TEXTS: dict[str, tuple[dict[str, Any], str, str]] = {
    # source -> its section, name of the file, text
    "columns": (
        {"source": "columns", "timestamp": "t", "rating": "r"},
        "log.csv",
        "user,item,t,r\n" + "".join(f"{u},{i},{t},{r}\n" for u, i, t, r in ROWS),
    ),
    "columns json": (
        {"source": "columns", "timestamp": "t", "rating": "r"},
        "log.json",
        _json("user", "item", "t", "r"),
    ),
    "amazon": ({"source": "amazon_2018"}, "log.json", _json("reviewerID", "asin", "unixReviewTime", "overall")),
    "yelp": ({"source": "yelp"}, "log.json", _json("user_id", "business_id", "date", "stars")),
    "recbole": (
        {"source": "recbole"},
        "x.inter",
        "user_id:token\titem_id:token\ttimestamp:float\trating:float\n"
        + "".join(f"{u}\t{i}\t{t}\t{r}\n" for u, i, t, r in ROWS),
    ),
    "sequences": ({"source": "sequences"}, "x.txt", "".join(f"{u} {i}\n" for u, i, _, _ in ROWS)),
    "movielens csv": (
        {"source": "movielens"},
        "ml/ratings.csv",
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, t, r in ROWS),
    ),
    "movielens dat": (
        {"source": "movielens"},
        "ml/ratings.dat",
        "".join(f"{u}::{i}::{r}::{t}\n" for u, i, t, r in ROWS),
    ),
    "movielens 100k": (
        {"source": "movielens"},
        "ml/u.data",
        "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, t, r in ROWS),
    ),
    "minionerec": (
        {"source": "minionerec"},
        "one/train/x.csv",
        "user_id,history_item_id,item_id\n"
        + "".join(f"u{n},\"['Zoé', '{n}']\",{n + 1}\n" for n in range(20)),
    ),
}  # fmt: skip


def section(kind: str, write: Write, change: Callable[[str], bytes], **more: Any) -> dict[str, Any]:
    """The section of a source over a file of its own that `change` makes of the text."""
    settings, name, text = TEXTS[kind]
    path = Path(write(name, change(text)))
    if settings["source"] == "movielens":
        path = path.parent
    if settings["source"] == "minionerec":
        path = path.parents[1]
    return {**settings, "path": str(path), "cleaning": LOOSE, **more}


def check(**section: Any) -> None:
    settings = TypeAdapter[Any](Dataset).validate_python(section)
    source(settings).check(settings)


@pytest.fixture
def plain(make: Make, write: Write) -> Callable[[str], list[tuple[Any, ...]]]:
    """The rows of a source as its plain file gives them."""

    def run(kind: str) -> list[tuple[Any, ...]]:
        made = make(only_raw=True, **section(kind, write, str.encode))
        assert made.rejected == []
        assert len(made.log) >= 40
        return list(made.log)

    return run


@pytest.mark.parametrize("kind", TEXTS)
def test_packings_encodings_and_line_ends(
    kind: str, make: Make, write: Write, plain: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    expected = plain(kind)
    forms: list[tuple[str, Callable[[str], bytes]]] = []
    for name, pack in PACKINGS.items():
        forms.append((name, lambda text, pack=pack: pack(text.encode())))  # type: ignore[misc]
    for encoding in ENCODINGS:
        forms.append((encoding, lambda text, encoding=encoding: text.encode(encoding)))  # type: ignore[misc]
    for end in ("\r\n", "\r"):
        forms.append((repr(end), lambda text, end=end: text.replace("\n", end).encode()))  # type: ignore[misc]
    forms.append(("no end", lambda text: text.rstrip("\n").encode()))
    forms.append(("all", lambda text: lzma.compress(text.replace("\n", "\r").encode("utf-16"))))
    for name, change in forms:
        settings = section(kind, write, change)
        check(**settings)
        made = make(only_raw=True, **settings)
        assert made.log == expected, name
        assert made.rejected == [], name


@pytest.mark.parametrize("kind", TEXTS)
def test_an_encoding_that_is_said(
    kind: str, make: Make, write: Write, plain: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    russian = section(kind, write, lambda text: text.replace("é", "я").encode("cp1251"), encoding="cp1251")
    made = make(only_raw=True, **russian)
    assert [tuple(str(v).replace("я", "é") for v in row) for row in made.log] == [
        tuple(map(str, row)) for row in plain(kind)
    ]


def test_encodings_that_are_none() -> None:
    for wrong in ("utf8000", "rot13", "base64"):
        with pytest.raises(ValidationError, match="is no encoding that Python knows"):
            TypeAdapter[Any](Dataset).validate_python({"source": "yelp", "path": "x", "encoding": wrong})


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (b"plain\n", "utf-8"),
        ("Café\nnaïve\n".encode("latin-1"), "cp1252"),
        ("Café “quoted”\n".encode("cp1252"), "cp1252"),
        ("商品\n".encode() * 3 + b"caf\xe9\n", "utf-8"),  # UTF-8 with one damaged line
        (b"\xff 1\n", "utf-8"),
        ("Привет мир\nкниги\n".encode("cp1251"), "utf-8"),  # refused line by line, not read as something else
        ("商品目录\n".encode("gb18030"), "utf-8"),
    ],
)
def test_what_is_told_of_an_encoding(tmp_path: Path, raw: bytes, encoding: str) -> None:
    (tmp_path / "x").write_bytes(raw)
    assert text_form(tmp_path / "x").encoding == encoding


def test_other_encodings_are_refused_with_a_word(make: Make, write: Write) -> None:
    text = "user,item\n" + "пользователь,книга\n" * 9
    with pytest.raises(RejectedError, match=r"utf-8 text: 9.*`encoding`"):
        make(source="columns", path=write("a.csv", text.encode("cp1251")), cleaning={"core": None})


@pytest.mark.parametrize("kind", TEXTS)
def test_every_packing_that_breaks_off_is_named(kind: str, make: Make, write: Write) -> None:
    for name in ("gz", "bz2", "xz", "zst", "zip"):
        big = lambda text, pack=PACKINGS[name]: pack((text * 3).encode())  # noqa: E731
        settings = section(kind, write, lambda text, big=big: big(text)[: int(0.7 * len(big(text)))])  # type: ignore[misc]
        for act in (check, make):
            with pytest.raises(DataFileError, match=r"stream is damaged or breaks off"):
                act(**settings)


def test_files_that_are_no_text(make: Make, write: Write, tmp_path: Path) -> None:
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("[Content_Types].xml", "x")
        archive.writestr("xl/workbook.xml", "x")
    pl.DataFrame({"user": [1], "item": [1]}).write_parquet(tmp_path / "p.parquet")
    cases = {
        two.getvalue(): r"a zip of 2 files \(a\.csv, b\.csv\), expected one",
        book.getvalue(): "an Excel workbook; save its sheet as CSV",
        b"ARROW1" + bytes(50): "an Arrow or Feather file",
        b"\x80\x04\x95" + bytes(50): "a Python pickle",
        bytes(range(256)) * 9: "no text",
        gzip.compress((tmp_path / "p.parquet").read_bytes()): "Parquet that is packed once more; unpack it",
        b"": "is empty",
    }
    for data, expected in cases.items():
        path = write("x.csv", data)
        for act in (check, make):
            with pytest.raises(DataFileError, match=rf"x\.csv: {expected}"):
                act(source="columns", path=path)


# quotes


def rows_text(quoted: bool = False) -> list[str]:
    mark = '"' if quoted else ""
    return [f"{mark}u{n % 7}{mark},{mark}i{n % 5}{mark},{1_400_000_000 + n},{mark}fine {n}{mark}" for n in range(60)]


STRAYS: dict[str, dict[int, str]] = {
    "never closed": {20: 'u6,i0,1400000020,"great'},
    "in the last line": {59: 'u3,i4,1400000059,"great'},
    "in the first line": {0: 'u0,i0,1400000000,"great'},
    "two that make a pair": {20: 'u6,i0,1400000020,"great', 40: 'u5,i0,1400000040,fine"'},
    "two next to each other": {20: 'u6,i0,1400000020,"great', 21: 'u0,i1,1400000021,fine"'},
    "in a column that is read": {20: '"u6,i0,1400000020,x', 40: 'u5",i0,1400000040,x'},
    "a pair around a quoted one": {20: 'u6,i0,1400000020,"great', 30: 'u2,i0,1400000030,"all well"'},
    "three": {10: 'u3,i0,1400000010,"a', 11: 'u4,i1,1400000011,"b', 12: 'u5,i2,1400000012,"c'},
}


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("name", STRAYS)
@pytest.mark.parametrize("size", [16 << 20, 300])
def test_stray_quotes_swallow_nothing(
    name: str, quoted: bool, size: int, make: Make, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", size)
    monkeypatch.setattr(csv_rows.csv_frames, "__defaults__", (None, size))
    rows = rows_text(quoted)
    for place, line in STRAYS[name].items():
        rows[place] = line
    path = write("a.csv", "user,item,t,note\n" + "\n".join(rows) + "\n")
    strays = {place + 2 for place in STRAYS[name]}
    items = {"path": path, "id": "item", "title": "note"}
    made = make(only_raw=True, source="columns", path=path, timestamp="t", items=items, cleaning=LOOSE)
    rejected = {line for _, line, _, _ in made.rejected}
    assert rejected <= strays, "only the lines with the quotes"
    assert made.raw("interactions").num_rows == 60 - len(rejected)
    times = made.raw("interactions")["timestamp"].to_pylist()
    assert times == [1_400_000_000 + n for n in range(60) if n + 2 not in rejected]
    assert len(made.rejected) == 2 * len(rejected), "the table of items has lost as many"


def test_stray_quotes_in_the_files_of_other_sources(make: Make, write: Write) -> None:
    ratings = [f"{n},{n % 9 + 1},4.0,{1_400_000_000 + n}" for n in range(50)]
    ratings[10], ratings[30] = '10,"2,4.0,1400000010', '30,4",4.0,1400000030'
    films = [f"{n},Film {n} (1999),Drama|War" for n in range(1, 10)]
    films[2], films[6] = '3,"Film 3 (1999),Drama', '7,Film 7" (1999),Drama'
    folder = Path(write("ml/ratings.csv", "userId,movieId,rating,timestamp\n" + "\n".join(ratings))).parent
    write("ml/movies.csv", "movieId,title,genres\n" + "\n".join(films))
    made = make(only_raw=True, source="movielens", path=str(folder), cleaning=LOOSE)
    lost = [(file, line) for file, line, _, _ in made.rejected]
    assert {("ratings.csv", 12), ("movies.csv", 4)} <= set(lost) <= {
        ("ratings.csv", 12), ("ratings.csv", 32), ("movies.csv", 4), ("movies.csv", 8)
    }  # fmt: skip
    assert len(made.log) == 50 - sum(file == "ratings.csv" for file, _ in lost)
    assert len(made.items) == 9 - sum(file == "movies.csv" for file, _ in lost)

    samples = [f'u{n},"[{n}, {n + 1}]",{n + 2}' for n in range(30)]
    samples[5] = 'u5,"[5, 6],7'
    folder = Path(write("one/train/x.csv", "user_id,history_item_id,item_id\n" + "\n".join(samples))).parents[1]
    made = make(only_raw=True, source="minionerec", path=str(folder), cleaning=LOOSE)
    assert [line for _, line, _, _ in made.rejected] == [7]
    assert len({user for user, *_ in made.log}) == 29


@pytest.mark.parametrize("seed", range(12))
def test_quoted_fields_against_the_standard_library(
    seed: int, make: Make, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts with separators, quotes and line breaks are read as Python's csv module does, whatever the blocks."""
    draw = random.Random(seed)
    words = ["good", 'so "nice"', "a, b", "line\nbreak", "two\n\nbreaks", "crlf\r\nhere", "tab\there", "é", "", " x "]
    rows = [(f"u{draw.randrange(9)}", " ".join(draw.choices(words, k=draw.randrange(8))), f"i{n}") for n in range(150)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=draw.choice(["\n", "\r\n"]), quoting=draw.choice([0, 1]))
    writer.writerow(("user", "text", "item"))
    writer.writerows(rows)
    size = draw.choice([64, 200, 1000, 1 << 20])
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", size)
    monkeypatch.setattr(csv_rows.csv_frames, "__defaults__", (None, size))
    path = write("a.csv", buffer.getvalue())
    items = {"path": path, "id": "item", "text": ["text"]}
    made = make(only_raw=True, source="columns", path=path, items=items)
    assert made.rejected == []
    assert [row[:2] for row in made.log] == [(user, item) for user, _, item in rows]
    texts = {item: " ".join(text.split()) for _, text, item in rows}
    assert {item: row["attributes"].get("text", "") for item, row in made.items.items()} == texts


REVIEWS = [
    "Great.\nHowever, it broke",
    "Nice.\nCheap, too",
    "Pros: light\nCons: pricey, but ok",
    "Good\n\nUpdate, still so",
]


@pytest.mark.parametrize("share", [0.02, 0.3])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("columns", ["item text time user", "item text user time rating", "user item text time"])
def test_the_last_line_of_a_text_is_no_row_of_its_own(
    columns: str, quoting: Any, share: float, make: Make, write: Write
) -> None:
    """It may have as many separators as a row has, and values like those of rows."""
    draw = random.Random(3)
    texts = [draw.choice(REVIEWS if draw.random() < share else ["Works fine, good value.", "ok"]) for _ in range(400)]
    rows = [
        {"user": f"A{n % 37}", "item": f"B0{n % 29}X", "text": text, "time": 1_600_000_000 + n, "rating": n % 5 + 1}
        for n, text in enumerate(texts)
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns.split(), quoting=quoting, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    path = write("a.csv", buffer.getvalue())
    items = {"path": path, "id": "item", "text": ["text"]}
    made = make(only_raw=True, source="columns", path=path, timestamp="time", items=items)
    assert [row[:2] for row in made.log] == [(row["user"], row["item"]) for row in rows]
    assert made.rejected == []
    assert set(made.items) == {row["item"] for row in rows}


def test_a_field_of_a_million_characters(make: Make, write: Write) -> None:
    long = "x " * 500_000
    text = f'user,item,note\nu,1,"{long}"\nu,2,{long}\nv,1,"a\n{long}"\n'
    path = write("a.csv", text)
    made = make(only_raw=True, source="columns", path=path, items={"path": path, "id": "item", "text": ["note"]})
    assert [row[:2] for row in made.log] == [("u", "1"), ("u", "2"), ("v", "1")]
    assert made.rejected == []
    assert made.items["1"]["attributes"]["note"][:3] == "x x"


@pytest.mark.parametrize("end", ["{s}", "{s}{s}", "{s} "])
@pytest.mark.parametrize("in_header", [False, True])
@pytest.mark.parametrize("some", [False, True])
def test_separators_at_the_end_of_rows(end: str, in_header: bool, some: bool, make: Make, write: Write) -> None:
    """On all rows or on some, in the header or not: of every source whose rows have separators."""

    def ended(text: str, separator: str, header: bool) -> str:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if (number or not header or in_header) and (not some or number % 3):
                lines[number] = line + end.replace("{s}", separator)
        return "\n".join(lines) + "\n"

    for kind, separator, header in (
        ("columns", ",", True), ("recbole", "\t", True), ("movielens csv", ",", True),
        ("movielens dat", "::", False), ("movielens 100k", "\t", False), ("minionerec", ",", True),
    ):  # fmt: skip
        expected = make(only_raw=True, **section(kind, write, str.encode)).log
        change = lambda text, s=separator, h=header: ended(text, s, h).encode()  # noqa: E731
        made = make(only_raw=True, **section(kind, write, change))
        assert made.rejected == [], kind
        assert made.log == expected, kind


def test_bad_bytes_in_columns_that_are_not_read_do_no_harm(make: Make, write: Write) -> None:
    good = "商品".encode()
    text = b"user,item,note\n" + b"".join(b"u%d,%s,%s\n" % (n, good, good) for n in range(20))
    text += b"u20,i,half \xed\xa0\xbd of a smile\nu\xff,i,x\nu21,i,\xff\n"
    items = {"path": write("a.csv", text), "id": "item", "title": "note"}
    made = make(only_raw=True, source="columns", path=write("a.csv", text), items=items, cleaning=LOOSE)
    assert [user for user, *_ in made.log] == [*(f"u{n}" for n in range(21)), "u21"]
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [(23, "user is not utf-8 text")]
    assert made.items["i"]["title"] == "half \ufffd of a smile"


# JSON


def json_forms() -> dict[str, str]:
    rows = [{"user": u, "item": i, "t": t, "r": r, "more": {"a": [1, {"b": "}\n{"}]}} for u, i, t, r in ROWS]
    return {
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "array": json.dumps(rows),
        "array of lines": "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        "pretty array": json.dumps(rows, indent=2, ensure_ascii=False),
        "pretty objects": "\n".join(json.dumps(row, indent=4) for row in rows),
        "pretty objects with commas": ",\n".join(json.dumps(row, indent="\t") for row in rows),
    }


@pytest.mark.parametrize("separator", ["§", "é", "^", " ", "\x01"])
def test_any_character_separates(make: Make, write: Write, separator: str) -> None:
    rows = [("user", "item", "t"), ("u1", '"i 1"', "1600000000"), ("u2", "i2", "1600000001")]
    path = write("log.csv", "".join(separator.join(row) + "\n" for row in rows))
    items = write("items.csv", 'id,title\n"i 1",A\ni2,B\n'.replace(",", separator))
    made = make(
        only_raw=True, source="columns", path=path, timestamp="t", separator=separator, cleaning=LOOSE,
        items={"path": items, "id": "id", "title": "title", "separator": separator},
    )  # fmt: skip
    assert [row[:3] for row in made.log] == [("u1", "i 1", 1600000000), ("u2", "i2", 1600000001)]
    assert {raw: item["title"] for raw, item in made.items.items()} == {"i 1": "A", "i2": "B"}
    assert made.rejected == []


@pytest.mark.parametrize("line", ["sep=;", "SEP=;\r", '"sep=;"', "\ufeffsep=;", "sep=|"])
def test_the_line_with_the_separator_of_a_spreadsheet(make: Make, write: Write, line: str) -> None:
    mark = "|" if "|" in line else ";"
    # of a header with more commas, the line tells all the same
    rows = [mark.join(("user", "item", "a,b,c,d"))] + [mark.join((f"u{n}", f"i{n % 3}", "x")) for n in range(9)]
    made = make(
        only_raw=True, source="columns", path=write("a.csv", "\n".join([line, *rows, f"u9{mark}i1"])), cleaning=LOOSE
    )
    assert [row[:2] for row in made.log] == [(f"u{n}", f"i{n % 3}") for n in range(9)]
    assert [row[1] for row in made.rejected] == [12]


@pytest.mark.parametrize("separator", ['"', "\n", "\r"])
def test_quotes_and_line_ends_separate_nothing(separator: str) -> None:
    for more in ({"separator": separator}, {"items": {"path": "i.csv", "id": "id", "separator": separator}}):
        with pytest.raises(ValidationError, match=r"separator\n.*ends a line or encloses a field, and separates none"):
            TypeAdapter[Any](Dataset).validate_python({"source": "columns", "path": "log.csv", **more})


@pytest.mark.parametrize("form", json_forms())
def test_forms_of_json(form: str, make: Make, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json_forms()[form]
    expected = [(u, i, t, r, None) for u, i, t, r in ROWS]
    for piece in (1 << 20, 37):
        monkeypatch.setattr("tessera.data.sources.json_forms._PIECE", piece)
        path = write("x.json", text)
        items = {"path": path, "id": "item", "text": ["user"]}
        settings = {"source": "columns", "path": path, "timestamp": "t", "rating": "r", "items": items}
        check(**settings)
        made = make(only_raw=True, **settings)
        assert made.log == expected
        assert made.rejected == []
        assert len(made.items) == 5
    renamed = text.replace('"item"', '"business_id"').replace('"user"', '"user_id"').replace('"t"', '"date"')
    assert len(make(only_raw=True, source="yelp", path=write("y.json", renamed)).log) == 40
    renamed = text.replace('"item"', '"asin"').replace('"user"', '"reviewerID"').replace('"t"', '"unixReviewTime"')
    assert len(make(only_raw=True, source="amazon_2014", path=write("y.json", renamed)).log) == 40


@pytest.mark.parametrize("form", ["array of lines", "pretty array", "pretty objects"])
def test_one_damaged_object_costs_one(form: str, make: Make, write: Write) -> None:
    text = json_forms()[form]
    place = text.index('"t": 1400000600')
    text = text[:place] + '"t": oops' + text[place + 15 :]
    made = make(only_raw=True, source="columns", path=write("x.json", text), timestamp="t", cleaning=LOOSE)
    assert [line for _, line, _, _ in made.rejected] == [11]
    kept = {row[2] for row in made.log}
    assert kept == {t for _, _, t, _ in ROWS} - {1_400_000_600}


def test_arrays_that_break_off_are_refused(make: Make, write: Write) -> None:
    text = json_forms()["array"]
    for cut in (len(text) - 1, len(text) - 30, len(text) // 2):
        with pytest.raises(DataFileError, match=r"x\.json: the JSON array is damaged, or breaks off, after object \d+"):
            make(source="columns", path=write("x.json", text[:cut]))


def test_json_of_columns_is_told(make: Make, write: Write) -> None:
    lists = {"user": ["u", "v"], "item": ["a", "b"]}
    for value in (lists, {key: dict(enumerate(column)) for key, column in lists.items()}):
        for text in (json.dumps(value), json.dumps(value, indent=1)):
            for act in (check, make):
                with pytest.raises(DataFileError, match=r"expected an object a row \(in pandas: orient='records'\)"):
                    act(source="columns", path=write("x.json", text))


def test_lists_by_user(make: Make, write: Write) -> None:
    value = {"a": [3, 1, 2], "b": ["x"], "c": "none", "d": [], "e": [[1, 2]]}
    good = [("a", "3"), ("a", "1"), ("a", "2"), ("b", "x")]
    first = {key: value[key] for key in "ab"}
    for text in (json.dumps(first), json.dumps(first, indent=4), '{"a": [3, 1]}\n{"a": [2]}\n{"b": ["x"]}\n'):
        for reader in ("columns", "sequences"):
            made = make(only_raw=True, source=reader, path=write("x.json", text))
            assert [row[:2] for row in made.log] == good
    text = '{"a": [3, 1, 2], "b": ["x"]}\n' + json.dumps({key: value[key] for key in "cde"})
    made = make(only_raw=True, source="columns", path=write("x.json", text), cleaning=LOOSE)
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [
        (3, "not a list of items"),
        (4, "the list of items is empty"),
        (5, "not a list of items"),
    ]
    twice = make(only_raw=True, source="columns", path=write("x.json", '{"a": [3], "a": [1]}'))
    assert [row[:2] for row in twice.log] == [("a", "3"), ("a", "1")]


NESTED = [{"a": 1}, [1, 2], True, False, {}, [], [["x"]]]
FLAT = ["a", "[1, 2]", '{"a": 1}', "true", "false", "[", "{x", 7, 1.5, "7.5", "", None, " b "]


def _said(value: Any) -> str | None:
    """The id that a text or a number is; None where there is none."""
    return None if value is None else str(value).strip() or None


@pytest.mark.parametrize("key", ["user", "item", "session"])
@pytest.mark.parametrize("seed", range(3))
def test_objects_lists_and_booleans_are_no_ids_whatever_stands_beside_them(
    seed: int, key: str, make: Make, write: Write
) -> None:
    draw = random.Random(seed)
    rows = []
    for _ in range(400):
        row: dict[str, Any] = {"user": "u", "item": "i", "session": "s", "t": 1_600_000_000}
        rows.append(row | {key: draw.choice(NESTED if draw.random() < 0.03 else FLAT)})
    lines = [json.dumps(row) for row in rows]
    damaged = draw.sample(range(400), 3)
    section: dict[str, Any] = {"source": "columns", "cleaning": LOOSE}
    if key == "session":
        section |= {"sessions": {"kind": "column", "column": "session"}, "timestamp": "t"}

    def result(bad: list[int]) -> tuple[list[tuple[Any, ...]], dict[int, str]]:
        text = "\n".join(line[:-2] if number in bad else line for number, line in enumerate(lines))
        made = make(only_raw=True, path=write("a.jsonl", text), **section)
        return [row[:2] for row in made.log], {line - 1: reason for _, line, reason, _ in made.rejected}

    expected, reasons = [], {}
    for number, row in enumerate(rows):
        value = row[key]
        if isinstance(value, dict | list | bool):
            reasons[number] = f"{key} is neither text nor number: {value!r}"
        elif _said(value) is None:
            reasons[number] = f"{key} is missing"
        else:
            user = f"u/{_said(row['session'])}" if key == "session" else _said(row["user"])
            expected.append((number, (user, _said(row["item"]))))
    log, rejected = result([])
    assert log == [row for _, row in expected]
    assert rejected == reasons
    log, rejected = result(damaged)
    assert log == [row for number, row in expected if number not in damaged]
    assert rejected.keys() == reasons.keys() | set(damaged)
    assert all(rejected[number] == reason for number, reason in reasons.items() if number not in damaged)


def test_ids_that_look_like_lists_beside_numbers_are_read_in_blocks(
    make: Make, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines._Reader, "_one_by_one", None)
    lines = [f'{{"user": {n}, "item": "[{n % 9}]", "more": {{"x": [true]}}}}' for n in range(300)]
    made = make(only_raw=True, source="columns", path=write("a.jsonl", "\n".join(lines)))
    assert [row[:2] for row in made.log] == [(str(n), f"[{n % 9}]") for n in range(300)]


def _by_parquet(rows: list[tuple[str, list[Any]]], write: Write) -> str:
    path = write("lists.parquet", "")
    table = {"user": [user for user, _ in rows], "item": [list(map(str, items)) for _, items in rows]}
    pq.write_table(pa.table(table, pa.schema({"user": pa.string(), "item": pa.list_(pa.string())})), path)
    return path


def _by_csv(rows: list[tuple[str, list[Any]]], write: Write, text: Callable[[Any], str]) -> str:
    with io.StringIO(newline="") as file:
        csv.writer(file).writerows([("user", "item"), *((user, text(items)) for user, items in rows)])
        return write("lists.csv", file.getvalue())


LISTS: dict[str, Callable[[list[tuple[str, list[Any]]], Write], str]] = {
    "Parquet": _by_parquet,
    "CSV of JSON": lambda rows, write: _by_csv(rows, write, json.dumps),
    "CSV of Python": lambda rows, write: _by_csv(rows, write, repr),
    "CSV of numpy": lambda rows, write: _by_csv(rows, write, lambda items: repr(items).replace(",", "")),
    "JSON lines": lambda rows, write: write(
        "lists.jsonl", "\n".join(json.dumps({"user": user, "item": items}) for user, items in rows)
    ),
    "JSON lines, one damaged": lambda rows, write: write(
        "lists.jsonl", "\n".join([*(json.dumps({"user": user, "item": items}) for user, items in rows), "{"])
    ),
    "JSON by user": lambda rows, write: write("lists.json", json.dumps(dict(rows))),
}


@pytest.mark.parametrize("form", LISTS)
def test_lists_that_are_empty_or_hold_more_than_ids(form: str, make: Make, write: Write) -> None:
    good: list[tuple[str, list[Any]]] = [(f"g{n}", ["a", n, "[1]", "true"]) for n in range(70)]
    odd: list[tuple[str, list[Any]]] = [("empty", []), ("end", ["z"])]
    if form != "Parquet":  # its types hold nothing else
        odd += [("list", [[1], 2]), ("object", ["b", {"c": 1}]), ("yes", [True, "b"]), ("none", [[]])]
    path = LISTS[form]([*good, *odd], write)
    made = make(only_raw=True, source="columns", path=path, cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [
        *((user, str(item)) for user, items in good for item in items), ("end", "z")
    ]  # fmt: skip
    start = 72 if form.startswith("CSV") else 71
    reasons = {line: reason for _, line, reason, _ in made.rejected if line < start + len(odd)}
    assert reasons.pop(start) == "the list of items is empty"
    assert sorted(reasons) == list(range(start + 2, start + len(odd)))
    why = "item holds what is neither text nor number" if form.startswith("JSON lines") else "not a list of items"
    why = "item is no list like the others" if form.startswith("CSV") else why
    assert all(reason.startswith(why) for reason in reasons.values())


def test_lists_as_numpy_writes_them(make: Make, write: Write) -> None:
    arrays = [["it's", "b c", 'say "x"'], ["007", "1", "10"], ["a"] * 40]  # long ones go over several lines
    texts = {f"t{n}": (str(np.array(items)), items) for n, items in enumerate(arrays)}
    texts["whole"] = (str(np.array([7, 10**12])), ["7", str(10**12)])
    texts["points"] = (str(np.array([7.0, 8.0])), ["7", "8"])
    with io.StringIO(newline="") as file:
        csv.writer(file).writerows([("user", "item"), *((user, text) for user, (text, _) in texts.items())])
        file.write(f"cut,{np.arange(2000)}\nwords,[a b]\n")
        path = write("arrays.csv", file.getvalue())
    made = make(only_raw=True, source="columns", path=path, cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [(user, item) for user, (_, items) in texts.items() for item in items]
    assert [text.startswith(("[   0    1", "[a b]")) for *_, text in made.rejected] == [True, True]


def test_a_list_that_is_nested_too_deeply_is_one_rejected_row(make: Make, write: Write) -> None:
    rows = [*(f'g{n},"[1, 2]"' for n in range(70)), "deep," + "[" * 20_000 + "]" * 20_000]
    made = make(
        only_raw=True, source="columns", path=write("lists.csv", "\n".join(["user,item", *rows])), cleaning=LOOSE
    )
    assert len(made.log) == 140
    assert [(line, why) for _, line, why, _ in made.rejected] == [(72, "item is no list like the others")]


def test_a_history_that_holds_lists_is_no_list_of_items(make: Make, write: Write) -> None:
    text = 'user_id,history_item_id,item_id\nu,[1],2\nv,"[[1], 2]",3\nw,"[True, 2]",3\nx,[],3\n'
    path = Path(write("one/train/x.csv", text)).parents[1]
    made = make(only_raw=True, source="minionerec", path=str(path), cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("u", "1"), ("u", "2")]
    reason = "history_item_id is no list of items"
    assert [(line, why) for _, line, why, _ in made.rejected] == [(line, reason) for line in (3, 4, 5)]


def test_items_whose_id_is_a_list_or_an_object_have_none(make: Make, write: Write) -> None:
    values = ["1", ["2"], {"a": 3}, True, None, 4]
    log = write("a.csv", "user,item\nu,1\nu,4\n")
    path = write("i.jsonl", "\n".join(json.dumps({"id": value, "name": "n"}) for value in values))
    items = {"path": path, "id": "id", "title": "name"}
    made = make(only_raw=True, source="columns", path=log, items=items, catalogue="all", cleaning=LOOSE)
    assert made.items.keys() == {"1", "4"}
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [
        *((line, "id is neither text nor number") for line in (2, 3, 4)), (5, "id is missing")
    ]  # fmt: skip
    for kind, key in (("amazon_2018", "asin"), ("yelp", "business_id")):
        rows = [{"reviewerID": "u", "user_id": "u", key: str(n), "date": "2020-01-01", "stars": 1} for n in (1, 4)]
        rows = [row | {"unixReviewTime": 1_600_000_000, "overall": 1} for row in rows]
        told = write("told.jsonl", "\n".join(json.dumps({key: value, "name": "n"}) for value in values))
        made = make(
            only_raw=True, source=kind, path=write("log.jsonl", "\n".join(map(json.dumps, rows))), catalogue="all",
            **{"businesses" if kind == "yelp" else "metadata": told},
        )  # fmt: skip
        assert made.items.keys() == {"1", "4"}
        assert json.loads((made.folder / "raw" / "ingest.json").read_text())["items_without_id"] == 4


def test_items_by_id_as_json(make: Make, write: Write) -> None:
    log = write("a.csv", "user,item\nu,1\nu,2\n")
    items = {"path": write("i.json", json.dumps({"1": {"name": "A"}, "2": {"name": "B"}})), "id": "id", "title": "name"}
    made = make(only_raw=True, source="columns", path=log, items=items)
    assert {key: row["title"] for key, row in made.items.items()} == {"1": "A", "2": "B"}


def test_halves_of_characters(make: Make, write: Write) -> None:
    """Half an emoji in a text is replaced; in an id, it makes the row a rejected one, and merges with nobody."""
    lines = [
        '{"user": "u", "item": "1", "more": "half \\ud83d"}',
        '{"user": "u\\ud83d", "item": "1"}',
        '{"user": "u", "item": "\\ude00"}',
        '{"user": "u\\ud83d\\ude00", "item": "2"}',
    ]
    items = ['{"id": "1", "name": "Tea \\ud83d"}', '{"id": "2", "name": "\\ud83d\\ude00", "note": ["\\ude00"]}']
    made = make(
        only_raw=True,
        source="columns",
        path=write("x.jsonl", "\n".join(lines)),
        items={"path": write("i.jsonl", "\n".join(items)), "id": "id", "title": "name", "text": ["note"]},
        cleaning=LOOSE,
    )
    assert [row[:2] for row in made.log] == [("u", "1"), ("u\U0001f600", "2")]
    assert [line for _, line, _, _ in made.rejected] == [2, 3]
    assert {key: row["title"] for key, row in made.items.items()} == {"1": "Tea \ufffd", "2": "\U0001f600"}
    product = '{"asin": "1", "title": "Tea \\ud83d", "brand": "\\ud83d"}'
    review = '{"reviewerID": "u", "asin": "1", "unixReviewTime": 5, "overall": 1}'
    made = make(only_raw=True, source="amazon_2018", path=write("r.json", review), metadata=write("m.json", product))
    assert made.items["1"]["title"] == "Tea \ufffd"


def test_objects_larger_than_the_pieces_in_which_they_are_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.data.sources.json_forms._PIECE", 64)
    rows = [{"n": n, "text": 'é}{[\\" ,\n' * n} for n in range(60)]
    path = Path(write("x.json", json.dumps(rows, indent=3, ensure_ascii=False)))
    raw = b"".join(block.data for block in json_blocks(path))
    assert [json.loads(line) for line in raw.splitlines()] == rows


# Parquet


def test_parquet_types(make: Make, tmp_path: Path) -> None:
    size = 6
    users = pa.array(["a", "b", "a", "b", "a", None]).dictionary_encode()
    table = pa.table(
        {
            "user": users,
            "number": pa.array([1, 2, 1, 2, 1, 2]).dictionary_encode(),
            "bytes": pa.array([b"x", b"y", b"x", b"y", b"x", "é".encode()]),
            "pairs": pa.FixedSizeListArray.from_arrays(pa.array(range(2 * size)), 2),
            "words": pa.array([["p", "q"]] * size, pa.large_list(pa.string())),
            "t": pa.array([1_400_000_000 + n for n in range(size)]).cast(pa.timestamp("s")),
            "clock": pa.array([3600 * n for n in range(size)], pa.time32("s")),
            "took": pa.array(range(size), pa.duration("s")),
            "kinds": pa.array([[("k", "v")]] * size, pa.map_(pa.string(), pa.string())),
        }
    )
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=2)

    def log(**more: Any) -> list[tuple[Any, ...]]:
        check(source="columns", path=str(path), **more)
        made = make(only_raw=True, source="columns", path=str(path), cleaning=LOOSE, **more)
        return [row[:3] for row in made.log]

    t = [1_400_000_000 + n for n in range(size)]
    assert log(item="number", timestamp="t") == list(zip("ababa", "12121", t[:5], strict=True))
    assert log(user="bytes", item="number")[-1] == ("é", "2", None)
    assert log(user="number", item="pairs")[:3] == [("1", "0", None), ("1", "1", None), ("2", "2", None)]
    assert [row[1] for row in log(user="number", item="words")] == ["p", "q"] * size
    for column, kind in (("clock", "time32"), ("took", "duration"), ("kinds", "map")):
        for act in (check, make):
            with pytest.raises(DataFileError, match=rf"x\.parquet: column '{column}' \(for timestamp\) holds {kind}"):
                act(source="columns", path=str(path), item="number", timestamp=column)
    with pytest.raises(
        DataFileError, match=r"column 'took' \(for user\) holds duration\[s\], expected texts or numbers"
    ):
        make(source="columns", path=str(path), user="took", item="number")
    items = {"path": str(path), "id": "number", "title": "user", "text": ["clock", "pairs", "words", "t"]}
    made = make(only_raw=True, source="columns", path=str(path), item="number", items=items, cleaning=LOOSE)
    assert made.items["1"]["title"] == "a"
    assert made.items["1"]["attributes"]["clock"] == "00:00:00"
    assert made.items["1"]["attributes"]["words"] == "p, q"


def test_folders_of_parts(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "spark"
    expected = []
    for day in range(3):
        for part in range(11):
            sub = folder / f"day={day}"
            sub.mkdir(parents=True, exist_ok=True)
            row = (f"u{day}", f"i{part}")
            expected.append((*row, str(day)))
            pl.DataFrame({"user": [row[0]], "item": [row[1]]}).write_parquet(sub / f"part.{part}.parquet")
            (sub / f".part.{part}.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_metadata").write_bytes(b"PAR1")
    made = make(only_raw=True, source="columns", path=str(folder), split_column="day", cleaning=LOOSE)
    parts_of = {"0": "train", "1": "valid", "2": "test"}
    assert [(row[0], row[1], row[4]) for row in made.log] == [(u, i, parts_of[d]) for u, i, d in expected]
    made = make(
        only_raw=True, source="columns", path=str(folder), items={"path": str(folder), "id": "item", "text": ["day"]}
    )
    assert made.items["i3"]["attributes"] == {"day": "0"}

    text = tmp_path / "texts"
    text.mkdir()
    for part in (0, 1):
        (text / f"part-0000{part}.csv.gz").write_bytes(gzip.compress(f"user,item\nu,{part}\n".encode()))
    (text / "part-00002.csv").write_bytes(b"")  # Spark writes empty parts, too
    assert [row[1] for row in make(only_raw=True, source="columns", path=str(text)).log] == ["0", "1"]
    (text / "part-00003.csv").write_text("user,thing\nu,1\n")
    with pytest.raises(DataFileError, match=r"part-00003\.csv: has no column 'item'"):
        check(source="columns", path=str(text))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.md").write_text("x")
    with pytest.raises(DataFileError, match=r"other: a folder without part-\* or \*\.parquet files.*holds: readme\.md"):
        parts(tmp_path / "other")
    for reader in ("amazon_2018", "yelp", "recbole", "sequences"):
        with pytest.raises(DataFileError, match="texts: a folder, expected a file"):
            check(source=reader, path=str(text))


def test_a_file_whose_name_begins_with_part_is_no_part(tmp_path: Path) -> None:
    for name in ("2023.parquet", "partners.parquet"):
        (tmp_path / name).write_bytes(b"PAR1")
    assert [path.name for path in parts(tmp_path)] == ["2023.parquet", "partners.parquet"]
    for name in ("part-0", "part.1.csv", "part_2", "part3", "part"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in parts(tmp_path)] == ["part", "part3", "part-0", "part.1.csv", "part_2"]


def test_lists_in_texts_may_have_blanks_around_them(make: Make, write: Write) -> None:
    path = write("a.csv", 'user,item\nu," [1, 2]"\nv,"[3] "\n')
    assert [row[:2] for row in make(only_raw=True, source="columns", path=path).log] == [
        ("u", "1"),
        ("u", "2"),
        ("v", "3"),
    ]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_rejected_rows_of_a_folder_name_their_part(form: str, make: Make, tmp_path: Path) -> None:
    """Parts have equal names in folders such as `day=3`; the lines of each count from its own start."""
    folder = tmp_path / "log"
    expected = []
    for day in ("day=10", "day=3", "day=3/hour=1"):
        (folder / day).mkdir(parents=True)
        for part in (0, 1):
            users = ["u", None if part else "v", "w", None]
            frame = pl.DataFrame({"user": users, "item": ["1", "2", "3", "4"]})
            path = folder / day / f"part-{part}.{form}"
            if form == "csv":
                frame.write_csv(path)
            else:
                frame.write_parquet(path) if form == "parquet" else frame.write_ndjson(path)
            wrong = [n for n, user in enumerate(users, 2 if form == "csv" else 1) if user is None]
            expected += [(f"{day}/part-{part}.{form}", line, "user is missing") for line in wrong]
    (folder / f"part-9.{form}").write_bytes((folder / "day=3" / f"part-0.{form}").read_bytes())
    expected.append((f"part-9.{form}", 5 if form == "csv" else 4, "user is missing"))
    order = {"day=3/hour": 0, "day=3/part": 1, "day=10/par": 2, f"part-9.{form}"[:10]: 3}
    expected.sort(key=lambda row: (order[row[0][:10]], row))
    made = make(only_raw=True, source="columns", path=str(folder), cleaning=LOOSE)
    assert [row[:3] for row in made.rejected] == expected
    with pytest.raises(RejectedError, match=rf"^day=3/hour=1/part-0\.{form}: 10 of 28 rows .* first: line"):
        make(only_raw=True, source="columns", path=str(folder))

    items = {"path": str(folder), "id": "user", "text": ["item"]}
    (tmp_path / "a.csv").write_text("user,item\na,u\n")
    made = make(only_raw=True, source="columns", path=str(tmp_path / "a.csv"), items=items, cleaning=LOOSE)
    assert {name for name, *_ in made.rejected} == {name for name, *_ in expected}


def test_rejected_samples_name_their_part(make: Make, write: Write) -> None:
    for part in ("train", "test"):
        path = write(f"one/{part}/x.csv", f"user_id,history_item_id,item_id\nu,[1],2\n{part},none,3\n")
    write("one/index/x.item.json", '{"1": "no object", "2": {"title": "t"}}')
    made = make(only_raw=True, source="minionerec", path=str(Path(path).parents[1]), cleaning=LOOSE)
    names = [(name, line) for name, line, _, text in made.rejected if text != "no object"]
    assert names == [("train/x.csv", 3), ("test/x.csv", 2), ("test/x.csv", 3)]
    assert [name for name, _, _, text in made.rejected if text == "no object"] == ["index/x.item.json"]


def test_damaged_parquet(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    users = [f"user {n * 7919 % 10_007}" for n in range(20_000)]
    pl.DataFrame({"user": users, "item": users}).write_parquet(path, compression="zstd", row_group_size=5000)
    data = path.read_bytes()
    for name, broken in {
        "cut": data[: len(data) // 2],
        "in the middle": data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :],
        "footer": data[:-40] + bytes(36) + data[-4:],
        "head only": b"PAR1",
    }.items():
        path.write_bytes(broken)
        with pytest.raises(DataFileError, match=r"x\.parquet: damaged or incomplete Parquet") as caught:
            make(source="columns", path=str(path))
        assert "\n" not in str(caught.value), name


# MovieLens

COLUMNS = {"userId": 0, "movieId": 1, "rating": 2, "timestamp": 3}


@pytest.mark.parametrize(
    ("name", "separator"), [("ratings.csv", ","), ("ratings.csv", ";"), ("ratings.dat", "::"), ("u.data", "\t")]
)
@pytest.mark.parametrize(
    "header",
    [None, "userId movieId rating timestamp", "movieId userId rating timestamp", "timestamp rating movieId userId",
     "User_ID Movie_ID Rating Timestamp", "user item rating time", "UserID ItemID Rating Date"],
)  # fmt: skip
def test_movielens_by_header(name: str, separator: str, header: str | None, make: Make, write: Write) -> None:
    """Neither are users and films swapped, nor is the first row lost."""
    rows = [(f"{n}", f"{100 + n % 3}", "4.5", f"{1_400_000_000 + n}") for n in range(10)]
    order = [0, 1, 2, 3]
    if header is not None:
        kinds = ["user", "movie|item", "rating", "time|date"]
        order = [
            next(n for n, kind in enumerate(kinds) if any(k in word.lower() for k in kind.split("|")))
            for word in header.split()
        ]
    lines = [separator.join(row[place] for place in order) for row in rows]
    if header is not None:
        lines.insert(0, separator.join(header.split()))
    folder = Path(write(f"ml/{name}", "\n".join(lines) + "\n")).parent
    settings = {"source": "movielens", "path": str(folder)}
    check(**settings)
    made = make(only_raw=True, **settings)
    assert made.log == [(u, i, int(t), float(r), None) for u, i, r, t in rows]
    assert made.rejected == []


def test_movielens_headers_that_do_not_fit(make: Make, write: Write) -> None:
    folder = str(Path(write("ml/ratings.csv", "usr,movieId,rating,timestamp\n1,2,3,4\n")).parent)
    for act in (check, make):
        with pytest.raises(DataFileError, match=r"ratings\.csv: line 1: the header .* has no column 'userId'"):
            act(source="movielens", path=folder)


@pytest.mark.parametrize(
    "text",
    ["movieId,title,genres\n1,A (1999),Drama|War\n", "title,genres,movieId\nA (1999),Drama|War,1\n",
     "1,A (1999),Drama|War\n", "movie_id;Title;Genre\n1;A (1999);Drama|War\n"],
)  # fmt: skip
def test_films_by_header(text: str, make: Make, write: Write) -> None:
    folder = str(Path(write("ml/ratings.csv", "1,1,3,4\n")).parent)
    write("ml/movies.csv", text)
    made = make(only_raw=True, source="movielens", path=folder)
    assert made.items["1"]["title"] == "A (1999)"
    assert made.items["1"]["attributes"] == {"genres": "Drama, War", "year": "1999"}


def test_films_that_cannot_be_read_are_counted(make: Make, write: Write) -> None:
    for ratings, films, text in (
        ("ratings.dat", "movies.dat", "1::A::Drama\n2::B\n"),
        ("u.data", "u.item", "1|A|||" + "|0" * 20 + "\n2|B\n"),
        ("ratings.csv", "movies.csv", "movieId,title,genres\n1,A,Drama\n2,B\n"),
    ):
        separator = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}[ratings]
        folder = Path(write(f"{ratings}/{ratings}", separator.join("1135") + "\n")).parent
        write(f"{ratings}/{films}", text)
        made = make(only_raw=True, source="movielens", path=str(folder), cleaning=LOOSE)
        assert [row[0] for row in made.rejected] == [films]
        assert made.items["1"]["title"] == "A"
    log = write("s.txt", "u 1\n")
    with pytest.raises(DataFileError, match=r"names\.txt: expected MovieLens' films"):
        make(source="sequences", path=log, films=write("names.txt", "1::A::Drama\n"))


# RecBole


def test_histories_of_recbole(make: Make, write: Write) -> None:
    """Rows of a history and a target, as RecBole's benchmark files hold them, in any order of their times."""
    lives = {"u": list("abcdefgh"), "v": list("hgfe")}
    rows = []
    for user, items in lives.items():
        for place in range(1, len(items)):
            history = " ".join(items[max(0, place - 3) : place])
            rows.append(f"{user}\t{history}\t{items[place]}\t{1000 + place}")
    random.Random(3).shuffle(rows)
    text = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n" + "\n".join(rows)
    made = make(only_raw=True, source="recbole", path=write("x.inter", text))
    assert made.rejected == []
    for user, items in lives.items():
        assert [item for who, item, *_ in made.log if who == user] == items


# what is rejected


def test_one_source_of_the_numbers(make: Make, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Beyond the cap of what is kept, and beyond twenty reasons, the counts stay whole; and they are told."""
    monkeypatch.setattr("tessera.data.log.REJECTED_KEPT", 50)
    rows = [f"u{n % 5},i{n % 7},{n}" for n in range(100)]
    rows += [f"u,i,never {n}" for n in range(60)] + ["a" + ",b" * (n + 3) for n in range(30)]
    items = write("i.csv", "id,title\ni1,x\ni2\n")
    made = make(
        source="columns",
        path=write("a.csv", "user,item,t\n" + "\n".join(rows)),
        timestamp="t",
        items={"path": items, "id": "id", "title": "title"},
        cleaning=LOOSE,
    )
    counts = json.loads((made.folder / "raw" / "ingest.json").read_text())
    reasons = {"timestamp is unreadable": 60, "wrong number of fields": 31}
    assert counts["reasons"] == reasons
    assert (counts["rejected"], counts["rejected_interactions"], counts["rejected_kept"]) == (91, 90, 50)
    assert len(made.rejected) == 50
    assert made.stats["rejected"] == {"rows": 91, "interactions": 90, "share": 90 / 190, "reasons": reasons}
    assert "rejected 91 rows (timestamp is unreadable: 60, wrong number of fields: 31)" in caplog.text
    assert "(the first 50)" in caplog.text


def test_rejected_rows_are_kept_after_a_refusal(make: Make, write: Write, tmp_path: Path) -> None:
    path = write("a.csv", "user,item\n" + "u,i\n" * 5 + "alone\n" * 5)
    with pytest.raises(RejectedError):
        make(source="columns", path=path)
    kept = pq.read_table(tmp_path / "made-1" / "raw" / "refused.parquet").to_pylist()
    assert [(row["line"], row["text"]) for row in kept] == [(line, "alone") for line in range(7, 12)]
    counts = json.loads((tmp_path / "made-1" / "raw" / "refused.json").read_text())
    assert counts["reasons"] == {"wrong number of fields": 5}
    assert not (tmp_path / "made-1" / "raw" / "interactions.parquet").exists()


def test_no_row_is_lost_without_a_count(make: Make, write: Write) -> None:
    """Whatever is done to the bytes of a table: rows read and rejected are the lines, unless quotes join some."""
    rows = [f"u{n % 5},i{n % 7},{1_400_000_000 + n},note {n}" for n in range(80)]
    draw = random.Random(5)
    for _ in range(25):
        changed = list(rows)
        for _ in range(draw.randrange(1, 5)):
            place = draw.randrange(80)
            cut = draw.randrange(len(changed[place]))
            changed[place] = changed[place][:cut] + draw.choice(['"', '""', ",", "é", "\\"]) + changed[place][cut:]
        path = write("a.csv", "user,item,t,note\n" + "\n".join(changed) + "\n")
        made = make(only_raw=True, source="columns", path=path, timestamp="t", cleaning=LOOSE)
        assert len(made.log) + len(made.rejected) == 80
        assert len(made.rejected) <= 4


def test_the_files_of_a_source_stay_as_they_are_read_twice(write: Write) -> None:
    """What was told of a file is looked up again when the file changes."""
    path = Path(write("x.csv", "a,b\n"))
    assert text_form(path).encoding == "utf-8"
    path.write_bytes("é,b\n".encode("utf-16"))
    assert text_form(path).encoding == "utf-16"
    assert packed.head(path, 2) == b"\xff\xfe"
