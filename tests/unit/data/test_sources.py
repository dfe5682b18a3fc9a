"""Every source on small files, good rows and bad ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tessera.data.clock import Clock, read_clock
from tessera.data.files import DataFileError
from tessera.data.log import RejectedError

LOOSE = {"max_rejected": 0.9, "core": None}


def jsonl(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def review(user: str, item: str, time: int, rating: float = 5.0) -> dict[str, Any]:
    text = 'a "quote", a \\ and {"asin": "no"}'
    return {"overall": rating, "reviewerID": user, "asin": item, "reviewText": text, "unixReviewTime": time}


def test_amazon_2018(make: Callable[..., Any], write: Callable[..., str]) -> None:
    reviews = jsonl(
        review("A", "0001", 1_500_000_000),
        b'{"asin": "0001", "reviewerID": "cut',
        {"asin": "0001", "unixReviewTime": 1, "overall": 3.0},
        review("B", "0002", 1_500_000_001, 2.0),
        {**review("Ç", "商品", 1_500_000_002), "unixReviewTime": "soon"},
        b"[1, 2]",
        b"",
        review("Ç", "商品", 1_500_000_003),
    )
    script = "var aPageStart = (new Date()).getTime();"
    products = jsonl(
        {"asin": "0001", "title": "Fish &amp; <b>chips</b> 5 &lt; 6", "category": ["Food", "Fish"], "brand": "Çan",
         "description": ["One.", "<script>x()</script>Two."], "imageURLHighRes": ["http://x/y/51abc.jpg"]},
        {"asin": "0001", "title": "again"},
        {"asin": "0002", "title": script, "price": ".a-box{color:red}", "feature": []},
        {"asin": "9999", "title": "never bought"},
    )  # fmt: skip
    write("pictures/51abc.jpg", b"picture")
    made = make(
        only_raw=True,
        source="amazon_2018",
        path=write("r.json.gz", gzip.compress(reviews)),
        metadata=write("m.json", products),
        images=str(Path(write("pictures/0002.png", b"picture")).parent),
        cleaning=LOOSE,
    )
    assert made.log == [
        ("A", "0001", 1_500_000_000, 5.0, None),
        ("B", "0002", 1_500_000_001, 2.0, None),
        ("Ç", "商品", 1_500_000_003, 5.0, None),
    ]
    assert [(file, line) for file, line, _, _ in made.rejected] == [("r.json.gz", line) for line in (2, 3, 5, 6)]
    reasons = {line: reason for _, line, reason, _ in made.rejected}
    assert reasons[2].startswith("not JSON")
    assert reasons[3] == "user is missing"
    assert reasons[5] == "unixReviewTime is no number: 'soon'"
    assert reasons[6] == "not an object: list"
    assert made.items["0001"]["title"] == "Fish & chips 5 < 6"
    assert list(made.items["0001"]["attributes"].items()) == [
        ("brand", "Çan"),
        ("category", "Food > Fish"),
        ("description", "One. Two."),
    ]
    assert made.items["0002"] == {"raw_id": "0002", "title": None, "attributes": {}, "image": "0002.png"}
    assert made.items["0001"]["image"] == "51abc.jpg"
    assert set(made.items) == {"0001", "0002"}


def test_rejected_rows_are_few_among_many(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Bad lines inside a large block are found with their numbers; every good line is kept, in order."""
    rows: list[Any] = [review(f"u{i}", f"i{i % 7}", 1_400_000_000 + i) for i in range(3000)]
    bad = {17, 800, 801, 2999}
    for place in bad:
        rows[place] = b'{"asin": oops}'
    made = make(only_raw=True, source="amazon_2014", path=write("r.json", jsonl(*rows).rstrip(b"\n")))
    assert [user for user, *_ in made.log] == [f"u{i}" for i in range(3000) if i not in bad]
    assert [line for _, line, _, _ in made.rejected] == sorted(place + 1 for place in bad)
    assert made.raw("interactions")["row"].to_pylist() == list(range(2996))


def test_amazon_2014_python_literals(make: Callable[..., Any], write: Callable[..., str]) -> None:
    meta = b"{'asin': '01', 'title': \"Bob's\", 'categories': [['A', 'B']], 'imUrl': 'http://x/01x.jpg'}\n"
    meta += b"__import__('os').system('true')\n"
    made = make(
        only_raw=True,
        source="amazon_2014",
        path=write("r.json", jsonl(review("A", "01", 1))),
        metadata=write("m.json", meta),
        cleaning=LOOSE,
    )
    assert made.items["01"]["title"] == "Bob's"
    assert made.items["01"]["attributes"] == {"category": "A > B"}
    assert [line for _, line, _, _ in made.rejected] == [2]
    with pytest.raises(RejectedError, match=r"m\.json: 1 of 2 rows"):
        make(source="amazon_2014", path=write("r.json", jsonl(review("A", "01", 1))), metadata=write("m.json", meta))


def test_amazon_2023(make: Callable[..., Any], write: Callable[..., str]) -> None:
    row = {"rating": 4.0, "asin": "variant", "parent_asin": "P", "user_id": "U", "timestamp": 1_588_687_728_923}
    product = {"parent_asin": "P", "title": "T", "store": "S", "features": ["f", "f"], "details": {"Size": "1"},
               "images": [{"thumb": "t/1.jpg", "large": "l/2.jpg", "hi_res": None}], "price": 9.5}  # fmt: skip
    write("pics/2.jpg", b"")
    made = make(
        only_raw=True,
        source="amazon_2023",
        path=write("r.jsonl", jsonl(row)),
        metadata=write("m.jsonl", jsonl(product)),
        images=str(Path(write("pics/other.jpg", b"")).parent),
    )
    assert made.log == [("U", "P", 1_588_687_728_923, 4.0, None)]
    assert read_clock(made.folder / "raw" / "interactions.parquet") == Clock("ms")
    assert made.items["P"]["attributes"] == {"brand": "S", "price": "9.5", "features": "f", "details": "Size: 1"}
    assert made.items["P"]["image"] == "2.jpg"


def test_details_that_are_nested_too_deeply_stay_a_text(make: Callable[..., Any], write: Callable[..., str]) -> None:
    row = {"rating": 4.0, "parent_asin": "P", "user_id": "U", "timestamp": 1_588_687_728_923}
    product = {"parent_asin": "P", "title": "T", "details": '{"Size": ' + "[" * 20_000 + "]" * 20_000 + "}"}
    files = {"path": write("r.jsonl", jsonl(row)), "metadata": write("m.jsonl", jsonl(product))}
    made = make(only_raw=True, source="amazon_2023", **files)
    assert made.items["P"]["attributes"]["details"].startswith('{"Size": [[[')


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_product_page_counts_of_sales_and_reviews_is_no_text(
    packed: bool, make: Callable[..., Any], write: Callable[..., str]
) -> None:
    """The page was read after every held-out purchase."""
    row = {"rating": 4.0, "parent_asin": "P", "user_id": "U", "timestamp": 1_588_687_728_923}
    details = {
        "Best Sellers Rank": {"Video Games": 33, "Nintendo Switch Games": 5},
        "Amazon Best Sellers Rank:": "#5 in Toys",
        "Customer Reviews": {"ratings_count": 17, "stars": "4.9"},
        "Size": "1",
    }
    product = {"parent_asin": "P", "title": "T", "average_rating": 4.9, "rating_number": 17,
               "details": json.dumps(details) if packed else details}  # fmt: skip
    files = {"path": write("r.jsonl", jsonl(row)), "metadata": write("m.jsonl", jsonl(product))}
    made = make(only_raw=True, source="amazon_2023", **files)
    assert made.items["P"]["attributes"] == {"details": "Size: 1"}


def test_a_recbole_item_file_tells_no_counts(make: Callable[..., Any], write: Callable[..., str]) -> None:
    inter = "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\n"
    items = (
        "item_id:token\ttitle:token_seq\tsales_rank:float\titem_stars:float\titem_review_count:float\tbrand:token\n"
        "i\tLamp\t7\t4.5\t12\tOak\n"
    )
    made = make(only_raw=True, source="recbole", path=write("x.inter", inter), items_file=write("x.item", items))
    assert made.items["i"]["title"] == "Lamp"
    assert made.items["i"]["attributes"] == {"brand": "Oak"}


def test_yelp(make: Callable[..., Any], write: Callable[..., str]) -> None:
    tips = jsonl(
        {"user_id": "u", "business_id": "b", "date": "2011-02-09", "text": "t"},
        {"user_id": "u", "business_id": "b", "date": "2016-03-09 12:30:00", "stars": 4.0},
        {"user_id": "u", "business_id": "b", "date": "yesterday"},
    )
    places = jsonl(
        {"business_id": "b", "name": "Café", "categories": "Food, Tea", "city": "Boston",
         "attributes": {"WiFi": True, "Parking": {"street": True, "lot": False}, "Dogs": False}},
    )  # fmt: skip
    made = make(
        only_raw=True, source="yelp", path=write("t.json", tips), businesses=write("b.json", places), cleaning=LOOSE
    )
    assert made.log == [("u", "b", 1_297_209_600, None, None), ("u", "b", 1_457_526_600, 4.0, None)]
    assert made.rejected[0][1:3] == (3, "timestamp yesterday is no time")
    assert made.items["b"]["title"] == "Café"
    assert made.items["b"]["attributes"] == {
        "categories": "Food, Tea",
        "city": "Boston",
        "attributes": "WiFi: yes, Parking: street",
    }


def test_movielens(make: Callable[..., Any], write: Callable[..., str], tmp_path: Path) -> None:
    flags = "|".join("1" if i in (3, 5) else "0" for i in range(19))
    write("a/u.data", "1\t010\t3\t881250949\n1\t011\t5\n2\t010\tx\t881250950\n")
    write("a/u.item", f"010|Léon (1994)|01-Jan-1994||http://x|{flags}\n".encode("latin-1"))
    made = make(only_raw=True, source="movielens", path=str(tmp_path / "a"), cleaning=LOOSE)
    assert made.log == [("1", "010", 881250949, 3.0, None)]
    assert [row[1:3] for row in made.rejected] == [(2, "3 fields, expected 4"), (3, "rating x is no number")]
    assert made.rejected[0][3] == "1\t011\t5"
    assert made.items["010"]["title"] == "Léon (1994)"
    assert made.items["010"]["attributes"] == {"genres": "Animation, Comedy", "year": "1994"}

    write("b/ratings.dat", "1::1193::5::978300760\r\n")
    write("b/movies.dat", "1193::Élan (1975)::Drama|War\n".encode("latin-1"))
    made = make(only_raw=True, source="movielens", path=str(tmp_path / "b"))
    assert made.log == [("1", "1193", 978300760, 5.0, None)]
    assert made.items["1193"]["attributes"] == {"genres": "Drama, War", "year": "1975"}
    assert made.items["1193"]["title"] == "Élan (1975)"

    write("c/ratings.csv", "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n")
    write("c/movies.csv", 'movieId,title,genres\n296,"Good, Bad (1994)",(no genres listed)\n')
    made = make(only_raw=True, source="movielens", path=str(tmp_path / "c"))
    assert made.log == [("1", "296", 1147880044, 5.0, None)]
    assert made.items["296"]["title"] == "Good, Bad (1994)"
    assert made.items["296"]["attributes"] == {"year": "1994"}

    write("d/rates.csv", "")
    with pytest.raises(FileNotFoundError, match=r"expected a folder with one of u\.data.*holds: rates\.csv"):
        make(source="movielens", path=str(tmp_path / "d"))


def test_recbole_and_mmrec(make: Callable[..., Any], write: Callable[..., str]) -> None:
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t07\t4\t10.0\nu\t08\t4\n"
    item = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n07\tToy Story\tAnimation Comedy\n"
    made = make(
        only_raw=True,
        source="recbole",
        path=write("x.inter", inter),
        items_file=write("x.item", item),
        cleaning=LOOSE,
    )
    assert made.log == [("u", "07", 10, 4.0, None)]
    assert made.rejected[0][:3] == ("x.inter", 3, "3 fields, expected 4")
    assert made.items["07"]["title"] == "Toy Story"
    assert made.items["07"]["attributes"] == {"class": "Animation Comedy"}

    mmrec = "userID\titemID\trating\tx_label\n0\t0\t1\t0\n0\t1\t1\t0\n0\t2\t1\t1\n0\t3\t1\t2\n"
    made = make(source="recbole", path=write("y.inter", mmrec), split={"kind": "given"}, cleaning={"core": None})
    assert [row[4] for row in made.log] == ["train", "train", "valid", "test"]
    assert made.histories()["0"] == [("0", "train"), ("1", "train"), ("2", "valid"), ("3", "test")]

    with pytest.raises(DataFileError, match=r"line 1: no column 'user_id'; did you mean 'users_id'\?"):
        make(source="recbole", path=write("z.inter", "users_id:token\titem_id:token\n1\t2\n"))


def test_sequences(make: Callable[..., Any], write: Callable[..., str]) -> None:
    cleaning = {"core": None, "max_rejected": 0.9}
    made = make(only_raw=True, source="sequences", path=write("p", "1 5\n1  007\nlonely\n2 5 6\n"), cleaning=cleaning)
    assert [row[:2] for row in made.log] == [("1", "5"), ("1", "007")]
    assert [row[1:3] for row in made.rejected] == [
        (3, "1 fields, expected `user item`"),
        (4, "3 fields, expected `user item`"),
    ]
    path = write("l", b"1 5 6 7\n\n2 8\n3\n\xff 1\n")
    made = make(only_raw=True, source="sequences", layout="lines", path=path, cleaning=cleaning)
    assert [row[:2] for row in made.log] == [("1", "5"), ("1", "6"), ("1", "7"), ("2", "8")]
    assert {row[1:3] for row in made.rejected} == {(4, "1 fields, expected `user item ...`"), (5, "not utf-8 text")}
    made = make(
        source="sequences",
        layout="lines_without_user",
        path=write("w", "5 6 7\n8 9\n5\n"),
        targets=write("t", "8\n5\n6\n"),
        cleaning=cleaning,
        split={"kind": "given"},
    )
    assert made.histories() == {
        "1": [("5", "train"), ("6", "train"), ("7", "valid"), ("8", "test")],
        "2": [("8", "train"), ("9", "valid"), ("5", "test")],
        "3": [("5", "train"), ("6", "test")],
    }
    with pytest.raises(DataFileError, match="has more lines than"):
        make(source="sequences", layout="lines_without_user", path=write("w", "5 6\n"), targets=write("t", "8\n5\n"))


CSV = 'user,"item",when,stars,note\nü,001,2020-01-02,4,"a, b"\nv,002,2020-01-03T04:05:06Z,,x\nw,003,bad,1,y\nv,1,2\n'


def test_columns_csv(make: Callable[..., Any], write: Callable[..., str]) -> None:
    section = {"source": "columns", "timestamp": "when", "rating": "stars", "cleaning": LOOSE}
    for name, text, separator in (("a.csv", CSV, None), ("b.txt", CSV.replace(",", ";"), ";")):
        made = make(only_raw=True, path=write(name, text), separator=separator, **section)
        assert made.log == [("ü", "001", 1577923200, 4.0, None), ("v", "002", 1578024306, None, None)]
        assert sorted(row[1:3] for row in made.rejected) == [
            (4, "timestamp bad is no time"),
            (5, "3 fields, expected 5"),
        ]
    packed = write("c.csv.gz", gzip.compress(CSV.encode()))
    assert len(make(only_raw=True, path=packed, **section).log) == 2
    with pytest.raises(DataFileError, match=r"has no column 'usr' \(for user\); did you mean 'user'\?"):
        make(path=write("a.csv", CSV), user="usr", **section)


def test_line_numbers_of_csv_across_bad_rows(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Record numbers stay right behind rows that were skipped."""
    rows = [f"u{i},i{i},{i}" for i in range(2, 60)]
    rows[10], rows[11], rows[30], rows[40] = "x", "y,z", "u,i,noon", "a,b,c,d"
    path = write("a.csv", "user,item,t\n" + "\n".join(rows) + "\n")
    made = make(only_raw=True, source="columns", path=path, timestamp="t", cleaning=LOOSE)
    assert sorted((line, reason) for _, line, reason, _ in made.rejected) == [
        (12, "1 fields, expected 3"),
        (13, "2 fields, expected 3"),
        (32, "timestamp noon is no time"),
        (42, "4 fields, expected 3"),
    ]


def test_columns_lists(make: Callable[..., Any], write: Callable[..., str]) -> None:
    text = 'user,items\na,"[\'x\', \'y\']"\nb,"[""z"", 1]"\nc,[oops\n'
    made = make(only_raw=True, source="columns", path=write("a.csv", text), item="items", cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("a", "x"), ("a", "y"), ("b", "z"), ("b", "1")]
    assert made.rejected[0][1] == 4
    path = write("a.jsonl", jsonl({"user": 1, "items": ["x", "y"]}, {"user": "2", "items": "x"}))
    made = make(only_raw=True, source="columns", path=path, item="items", cleaning=LOOSE)
    assert [row[:2] for row in made.log] == [("1", "x"), ("1", "y")]
    assert made.rejected[0][1:3] == (2, "items is no list: 'x'")


def test_columns_parquet_and_items_file(make: Callable[..., Any], write: Callable[..., str], tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "u": ["a", "b", None],
            "i": [1, 2, 3],
            "t": [1_600_000_000_000, 1_600_000_001_000, 5],
            "p": ["train", "dev", "2"],
        }
    ).write_parquet(tmp_path / "log.parquet")
    write("pics/p.png", b"")
    items = 'id;name;about;pic\n1;"One &amp; only";<b>x</b>;p.png\n1;again;;\n2;;nothing;gone.png\n9;far;;\nbad\n'
    made = make(
        only_raw=True,
        source="columns",
        path=str(tmp_path / "log.parquet"),
        user="u",
        item="i",
        timestamp="t",
        split_column="p",
        images=str(tmp_path / "pics"),
        items={"path": write("items.csv", items), "id": "id", "title": "name", "text": ["about"], "image": "pic"},
        cleaning=LOOSE,
    )
    assert made.log == [("a", "1", 1_600_000_000, None, "train"), ("b", "2", 1_600_000_001, None, "valid")]
    assert made.rejected[0][1:3] == (3, "user is missing")
    assert made.items == {
        "1": {"raw_id": "1", "title": "One & only", "attributes": {"about": "x"}, "image": "p.png"},
        "2": {"raw_id": "2", "title": None, "attributes": {"about": "nothing"}, "image": None},
    }
    with pytest.raises(DataFileError, match=r"has no column 'nam' \(for title\); did you mean 'name'\?"):
        make(
            source="columns",
            path=str(tmp_path / "log.parquet"),
            user="u",
            item="i",
            items={"path": write("items.csv", items), "id": "id", "title": "nam"},
            cleaning=LOOSE,
        )


def test_too_many_bad_rows_stop_the_stage(make: Callable[..., Any], write: Callable[..., str]) -> None:
    path = write("p", "1 5\n" * 9 + "bad\n")
    with pytest.raises(RejectedError) as caught:
        make(source="sequences", path=path)
    text = "p: 1 of 10 rows (10.0%) are unreadable, more than cleaning.max_rejected = 0.05"
    assert text in str(caught.value)
    assert "first: line 10: 1 fields, expected `user item`: 'bad'" in str(caught.value)


def test_nothing_to_read(make: Callable[..., Any], write: Callable[..., str]) -> None:
    with pytest.raises(DataFileError, match="holds no interactions"):
        make(source="sequences", path=write("empty", ""))
    with pytest.raises(DataFileError, match="hold no JSON objects"):
        make(source="yelp", path=write("empty.json", ""))
    with pytest.raises(DataFileError, match=r"no key 'user_id' \(for user\); did you mean 'user_idd'"):
        make(source="yelp", path=write("x.json", jsonl({"user_idd": "1", "business_id": "b", "date": "2020-01-01"})))
    cut = gzip.compress(jsonl(*[review("A", "1", 1)] * 50))[:-20]
    with pytest.raises(DataFileError, match="gzip stream is damaged"):
        make(source="amazon_2014", path=write("r.json.gz", cut))


def sample(user: str, history: object, target: object) -> str:
    quoted = str(history).replace('"', '""')
    return f'{user},"[\'a, ""b""\', \'c\']",title,"{quoted}",{target},x,y\n'


SAMPLES = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"


def test_minionerec_samples_become_histories(make: Callable[..., Any], write: Callable[..., str]) -> None:
    valid = SAMPLES + sample("A", [5, 6, 6], 7) + sample("B", [1], 2) + sample("A", [5, 6, 6, 7], 8)
    # histories are cut at four; a row in between is missing; one belongs to another sequence; two cannot be read
    test = SAMPLES + sample("A", [6, 6, 7, 8], 9) + sample("B", [1, 2, 3], 4) + sample("B", [9, 9, 9, 9], 1)
    test += sample("B", [1, 2], 3) + sample("C", "__import__('os')", 3) + sample("", [1], 3) + sample("C", [2], "")
    items = {
        "5": {"title": "Glue &amp; tape", "description": "['One.', \"It's two.\"]", "brand": "Ü", "categories": ""},
        "6": {"title": "Nail", "description": "[half a list", "brand": "", "categories": "Tools"},
        "7": ["no", "object"],
        "99": {"title": "never bought", "description": ""},
    }
    write("m/valid/Some_5.csv", valid)
    write("m/test/Some_5.csv", test)
    folder = Path(write("m/index/Some.item.json", json.dumps(items))).parents[1]
    made = make(source="minionerec", path=str(folder), cleaning=LOOSE)
    assert [(user, item) for user, item, *_ in made.log if user == "A"] == [("A", i) for i in "566789"]
    assert [(item, split) for user, item, _, _, split in made.log if user == "B"] == [
        ("1", "train"), ("2", "valid"), ("3", "test"), ("4", "test"),
    ]  # fmt: skip
    assert made.histories()["A"] == [(item, "train") for item in "5667"] + [("8", "valid"), ("9", "test")]
    assert [(line, reason) for _, line, reason, _ in made.rejected] == [
        (4, "does not continue the samples before it (user B)"),
        (5, "does not continue the samples before it (user B)"),
        (6, "history_item_id is no list of items"),
        (7, "user_id is missing"),
        (8, "item_id is missing"),
        (3, "not an object: list"),
    ]
    assert made.items["5"]["title"] == "Glue & tape"
    assert made.items["5"]["attributes"] == {"brand": "Ü", "description": "One. It's two."}
    assert made.items["6"]["attributes"] == {"category": "Tools", "description": "[half a list"}
    given = make(source="minionerec", path=str(folder), cleaning=LOOSE, split={"kind": "given"})
    assert given.histories()["B"][:3] == [("1", "train"), ("2", "valid"), ("3", "test")]
    assert [split for _, split in given.histories()["A"]].count("test") == 1


def test_minionerec_starts_with_the_train_file(make: Callable[..., Any], write: Callable[..., str]) -> None:
    write("m/test/Some_5.csv", SAMPLES + sample("A", [2, 3], 4))
    write("m/train/Some_5.csv", SAMPLES + sample("A", [1], 2) + sample("A", [1, 2], 3))
    folder = Path(write("m/index/Some.item.json", "{}")).parents[1]
    made = make(only_raw=True, source="minionerec", path=str(folder), cleaning=LOOSE)
    assert [item for _, item, *_ in made.log] == ["1", "2", "3", "4"]


def test_minionerec_folders_that_do_not_fit(make: Callable[..., Any], write: Callable[..., str]) -> None:
    folder = Path(write("m/test/Office_5.csv", SAMPLES + sample("A", [2, 3], 4))).parents[1]
    write("m/test/Tools_5.csv", SAMPLES + sample("B", [1], 4))
    with pytest.raises(DataFileError, match=r"holds several files test/\*\.csv: Office_5.csv, Tools_5.csv; say which"):
        make(source="minionerec", path=str(folder))
    made = make(only_raw=True, source="minionerec", path=str(folder), category="Tools")
    assert [user for user, *_ in made.log] == ["B", "B"]
    with pytest.raises(DataFileError, match="holds no samples; expected train"):
        make(source="minionerec", path=str(folder), category="Toys")
    write("m/test/Tools_5.csv", "user,history_item_id,item_id\nA,[1],2\n")
    with pytest.raises(DataFileError, match=r"Tools_5.csv: has no column 'user_id' \(for user\); did you mean 'user'"):
        make(source="minionerec", path=str(folder), category="Tools")
