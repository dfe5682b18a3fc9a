"""A whole products file as the catalogue: items that nobody met have texts and pictures, and train nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera.data.dataset import load_dataset

LOG = "u,i,t\n" + "".join(f"{user},{item},{1_600_000_000 + n}\n" for n, (user, item) in enumerate(
    (user, item) for user in ("a", "b", "c") for item in ("i2", "i10", "i30", "i4")
))  # fmt: skip
PRODUCTS = "sku,name,made\ni1,One,us\ni2,Two,de\ni10,Ten,\ni99,Last,fr\ni3,Three,\n"
LOOSE = {"core": None, "max_rejected": 1.0}


def shop(write: Callable[..., str], **section: Any) -> dict[str, Any]:
    return {
        "source": "columns",
        "path": write("log.csv", LOG),
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "items": {"path": write("products.csv", PRODUCTS), "id": "sku", "title": "name", "text": ["made"]},
        "cleaning": LOOSE,
    } | section


def titles(made: Any) -> dict[str, str | None]:
    table = made.data("items")
    assert table.column("item").to_pylist() == list(range(1, table.num_rows + 1))
    return dict(zip(table.column("raw_id").to_pylist(), table.column("title").to_pylist(), strict=True))


def test_items_of_the_log_alone_unless_all_are_wanted(make: Callable[..., Any], write: Callable[..., str]) -> None:
    told = titles(make(**shop(write)))
    assert told == {"i2": "Two", "i4": None, "i10": "Ten", "i30": None}
    made = make(**shop(write, catalogue="all"))
    # natural order over all of them: nothing of an id's number says whether somebody met it
    assert list(titles(made).items()) == [
        ("i1", "One"), ("i2", "Two"), ("i3", "Three"), ("i4", None), ("i10", "Ten"), ("i30", None), ("i99", "Last"),
    ]  # fmt: skip
    assert made.stats["counts"]["items"] == 7
    assert made.stats["cold_items"] == 5  # with the two that only validate and test
    assert json.loads((made.folder / "raw" / "ingest.json").read_text())["items_met_by_nobody"] == 3


def test_histories_are_the_same_under_both(make: Callable[..., Any], write: Callable[..., str]) -> None:
    assert make(**shop(write)).histories() == make(**shop(write, catalogue="all")).histories()


def test_who_met_nobody_is_no_target_and_trains_nothing(make: Callable[..., Any], write: Callable[..., str]) -> None:
    dataset = load_dataset(make(**shop(write, catalogue="all")).folder / "data")
    assert dataset.n_items == 7
    met = np.zeros(8, bool)
    met[dataset.items] = True
    assert np.flatnonzero(met).tolist() == [2, 4, 5, 6]
    assert dataset.train_counts[~met].sum() == 0


def test_what_a_core_takes_out_stays_in_the_catalogue(make: Callable[..., Any], write: Callable[..., str]) -> None:
    once = LOG + "a,i1,1600000500\na,i77,1600000501\n"
    section = shop(write, path=write("log2.csv", once), cleaning={"core": {"users": 3, "items": 3}})
    assert "i1" not in titles(make(**section))
    told = titles(make(**section, catalogue="all"))
    assert told["i1"] == "One"  # told of
    assert "i77" not in told  # known from the rows alone that the core took out


def test_pictures_of_items_that_nobody_met(make: Callable[..., Any], write: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("i1.jpg", "i2.jpg", "sub/i99.png", "i4.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    made = make(**shop(write, catalogue="all", images=str(folder)))
    images = dict(zip(*made.data("items").select(["raw_id", "image"]).to_pydict().values(), strict=True))
    expected = {"i1": "i1.jpg", "i2": "i2.jpg", "i99": "sub/i99.png", "i4": "i4.jpg"}
    assert {raw: image for raw, image in images.items() if image} == expected


def test_a_picture_of_one_by_its_whole_name_is_no_others(
    make: Callable[..., Any], write: Callable[..., str], tmp_path: Path
) -> None:
    """Also where its owner is an item that nobody met: `shoes/2.jpg` is that of `shoes/2`, not of `2`."""
    folder = tmp_path / "pictures"
    (folder / "shoes").mkdir(parents=True)
    (folder / "shoes" / "2.jpg").write_bytes(b"")
    log = "u,i,t\n" + "".join(f"a,{n},{1_600_000_000 + n}\n" for n in range(1, 5))
    products = "sku,name,made\n2,Two,\nshoes/2,Shoe,\n"
    section = shop(write, path=write("n.csv", log), images=str(folder))
    section["items"]["path"] = write("p.csv", products)
    made = make(**section, catalogue="all")
    images = dict(zip(*made.data("items").select(["raw_id", "image"]).to_pydict().values(), strict=True))
    assert images["2"] is None
    assert images["shoes/2"] == "shoes/2.jpg"


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _amazon(write: Callable[..., str]) -> dict[str, Any]:
    reviews = [
        {"reviewerID": "u", "asin": f"A{n}", "overall": 5.0, "unixReviewTime": 1_600_000_000 + n} for n in range(4)
    ]
    products = [{"asin": "A1", "title": "One"}, {"asin": "Z9", "title": "Nobody's", "brand": "Acme"}]
    return {
        "source": "amazon_2018",
        "path": write("r.json", jsonl(*reviews)),
        "metadata": write("m.json", jsonl(*products)),
    }


def _yelp(write: Callable[..., str]) -> dict[str, Any]:
    rows = [{"user_id": "u", "business_id": f"A{n}", "date": f"2020-01-0{n + 1}", "stars": 5} for n in range(4)]
    places = [{"business_id": "A1", "name": "One"}, {"business_id": "Z9", "name": "Nobody's", "city": "Acme"}]
    return {"source": "yelp", "path": write("r.json", jsonl(*rows)), "businesses": write("b.json", jsonl(*places))}


def _movielens(write: Callable[..., str]) -> dict[str, Any]:
    path = write("ml/ratings.dat", "".join(f"1::{n}::5::{1_600_000_000 + n}\n" for n in range(1, 5)))
    write("ml/movies.dat", "1::One (1990)::Drama\n9::Nobody's (1991)::Acme\n")
    return {"source": "movielens", "path": str(Path(path).parent)}


def _recbole(write: Callable[..., str]) -> dict[str, Any]:
    log = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(
        f"u\tA{n}\t{1_600_000_000 + n}\n" for n in range(4)
    )
    items = "item_id:token\ttitle:token_seq\tbrand:token\nA1\tOne\t\nZ9\tNobody's\tAcme\n"
    return {"source": "recbole", "path": write("x.inter", log), "items_file": write("x.item", items)}


@pytest.mark.parametrize("source", [_amazon, _yelp, _movielens, _recbole])
def test_every_source_tells_of_items_that_nobody_met(
    make: Callable[..., Any], write: Callable[..., str], source: Callable[..., dict[str, Any]]
) -> None:
    section = source(write) | {"cleaning": LOOSE}
    assert len(titles(make(**section))) == 4
    made = make(**section, catalogue="all")
    told = titles(made)
    assert len(told) == 5
    assert [title for title in told.values() if title and title.startswith("Nobody's")]
    stranger = next(row for row in made.data("items").to_pylist() if (row["title"] or "").startswith("Nobody's"))
    assert "Acme" in dict(stranger["attributes"]).values()


def test_the_rule_of_ids_holds_for_items_that_nobody_met(make: Callable[..., Any], write: Callable[..., str]) -> None:
    """Blanks go, what stands for none is counted and left out, and whole numbers are written as those of the log."""
    inter = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(
        f"{user}\t{item}\t{1_600_000_000 + n}\n" for n, (user, item) in enumerate(
            (user, item) for user in ("a", "b", "c") for item in ("1", "2", "4")
        )
    )  # fmt: skip
    told = "item_id:token\ttitle:token_seq\n1\tOne\n 2\tTwo\n\tNone\nnan\tNone\n7.0\tSeven\n"
    files = {"path": write("x.inter", inter), "items_file": write("x.item", told)}
    made = make(source="recbole", **files, catalogue="all", cleaning=LOOSE)
    assert titles(made) == {"1": "One", "2": "Two", "4": None, "7": "Seven"}
    assert json.loads((made.folder / "raw" / "ingest.json").read_text())["items_without_id"] == 2
