"""What the config and the first lines of files tell is refused before anything runs, each with its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tessera.plan.first_lines import check_first_lines
from tessera.plan.graph import Plan
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load

Write = Callable[[str, str | bytes], str]
LOG = "user,item,time\nu,1,5\n"


def config(systems: dict[str, Any] | None = None, tables: dict[str, Any] | None = None, **datasets: Any) -> Any:
    return Plan(
        load(
            {
                "datasets": datasets,
                "tables": tables or {},
                "systems": systems or {},
                "experiment": {"datasets": list(datasets), "systems": list(systems or ["popular"])},
                "significance": {},
            }
        )
    )


def test_every_dataset_that_does_not_fit_has_its_line(write: Write, tmp_path: Path) -> None:
    log = write("log.csv", LOG)
    pl.DataFrame({"user": ["u"], "item": [1]}).write_parquet(tmp_path / "whole.parquet")
    cut = write("cut.parquet", (tmp_path / "whole.parquet").read_bytes()[:-20])
    wrong = config(
        good={"source": "columns", "path": log, "items": {"path": log, "id": "item", "title": "time"}},
        typo={"source": "columns", "path": log, "timestamp": "tiem"},
        items={"source": "columns", "path": log, "items": {"path": log, "id": "item", "title": "name"}},
        cut={"source": "columns", "path": cut},
        keys={"source": "yelp", "path": write("x.json", '{"user": "u", "business": "b"}\n')},
        films={"source": "movielens", "path": str(Path(write("ml/ratings.csv", "a,b,c,d\n")).parent)},
        atoms={"source": "recbole", "path": write("x.inter", "users:token\titem_id:token\n")},
        samples={"source": "minionerec", "path": str(Path(write("one/test/x.csv", "user_id,item_id\n")).parents[1])},
        text={"source": "sequences", "path": write("x.txt", bytes(100))},
    )
    check_files(wrong)
    with pytest.raises(ConfigError) as caught:
        check_first_lines(wrong, "my.yaml")
    lines = str(caught.value).splitlines()
    expected = [
        r"datasets.typo.path: .*log.csv: has no column 'tiem' (for timestamp); did you mean 'time'?",
        r"datasets.items.items: .*log.csv: has no column 'name' (for title)",
        r"datasets.cut.path: .*cut.parquet: damaged or incomplete Parquet",
        r"datasets.keys.path: .*x.json: the objects have no key 'user_id' (for user)",
        r"datasets.films.path: .*ratings.csv: line 1: the header",
        r"datasets.atoms.path: .*x.inter: line 1: no column 'user_id'; did you mean 'users'?",
        r"datasets.samples.path: .*x.csv: has no column 'history_item_id'",
        r"datasets.text.path: .*x.txt: no text",
    ]
    assert len(lines) == len(expected)
    for line, told in zip(lines, expected, strict=True):
        key, message = told.split(".*")
        assert line.startswith(f"my.yaml: {key}")
        assert message in line


def test_good_files_are_passed(write: Write) -> None:
    log = write("log.csv", LOG)
    good = config(good={"source": "columns", "path": log, "items": {"path": log, "id": "item"}})
    check_files(good)
    check_first_lines(good)


def test_urls(write: Write) -> None:
    """Without a sum, or where no file is taken from a URL; nothing is fetched to find that out."""
    url, log = "https://example.invalid/log.csv", write("log.csv", LOG)
    sha = "0" * 64
    wrong = config(
        fine={"source": "columns", "path": url, "sha256": sha, "items": {"path": url, "sha256": sha, "id": "item"}},
        bare={"source": "columns", "path": url},
        items={"source": "columns", "path": log, "items": {"path": url, "id": "item"}},
        pictures={"source": "columns", "path": log, "images": url},
        films={"source": "movielens", "path": url, "sha256": sha},
        amazon={"source": "amazon_2018", "path": log, "metadata": url},
    )
    with pytest.raises(ConfigError) as caught:
        check_files(wrong)
    assert [line.split(": ", 2)[1:] for line in str(caught.value).splitlines()] == [
        ["datasets.bare.path", f"{url}: a URL needs the key 'sha256' beside it, the checksum of the file"],
        ["datasets.items.items.path", f"{url}: a URL needs the key 'sha256' beside it, the checksum of the file"],
        ["datasets.pictures.images", f"{url}: a URL is not taken here; fetch it and give the path"],
        ["datasets.films.path", f"{url}: a URL is not taken here; fetch it and give the path"],
        ["datasets.amazon.metadata", f"{url}: a URL is not taken here; fetch it and give the path"],
    ]
    check_first_lines(config(fine={"source": "columns", "path": url, "sha256": sha}))
    with pytest.raises(ConfigError, match=r"datasets\.x\.items\.sha256"):
        config(x={"source": "columns", "path": log, "items": {"path": url, "sha256": "../../x", "id": "item"}})


def test_homes_of_nobody() -> None:
    with pytest.raises(ConfigError, match=r"datasets\.x\.path: ~nobody-has-this-name/log\.csv: there is no user"):
        check_files(config(x={"source": "columns", "path": "~nobody-has-this-name/log.csv"}))


PATTERN = "in a path is a pattern to Snakemake; rename it, or name a link to it"


@pytest.mark.parametrize(("name", "part"), [("log {x}.csv", "{"), ("a}/log.csv", "}"), ("a/log <x_1>.csv", "<x_1>")])
def test_patterns_in_paths_that_rules_read(name: str, part: str, write: Write, tmp_path: Path) -> None:
    file, log = write(name, LOG), write("log.csv", LOG)
    np.save(tmp_path / "v {x}.npy", np.ones((2, 2)))
    wrong = config(
        tables={"v": {"recipe": "vectors", "path": str(tmp_path / "v {x}.npy")}},
        systems={"knows": {"items": {"table": "v"}}},
        own={"source": "columns", "path": file},
        items={"source": "columns", "path": log, "items": {"path": file, "id": "item"}},
    )
    with pytest.raises(ConfigError) as caught:
        check_files(wrong)
    assert str(caught.value).splitlines() == [
        f"config: datasets.own.path: {file}: {part} {PATTERN}",
        f"config: datasets.items.items.path: {file}: {part} {PATTERN}",
        f"config: tables.v.path: {tmp_path / 'v {x}.npy'}: {{ {PATTERN}",
    ]


def test_patterns_in_the_names_of_parts(write: Write, tmp_path: Path) -> None:
    write("parts/part-1.csv", LOG)
    file = write("parts/part-{2}.csv", LOG)
    wrong = config(own={"source": "columns", "path": str(tmp_path / "parts")})
    check_files(wrong)
    with pytest.raises(ConfigError) as caught:
        check_first_lines(wrong)
    assert str(caught.value) == f"config: datasets.own.path: {file}: {{ {PATTERN}"


def test_what_no_rule_reads_may_have_any_name(write: Write, tmp_path: Path) -> None:
    write("parts/part-1.csv", LOG)
    write("parts/notes {old}.txt", "")
    check_first_lines(config(own={"source": "columns", "path": str(tmp_path / "parts")}))


def test_no_rule_reads_pictures_one_by_one(write: Write, tmp_path: Path) -> None:
    write("pictures {x}/i<a>.jpg", "")
    images = str(tmp_path / "pictures {x}")
    good = config(own={"source": "columns", "path": write("log <A> > <.csv", LOG), "images": images})
    check_files(good)
    check_first_lines(good)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("archive.npy", "an .npz archive of a, b, expected one array"),
        ("cut.npy", "not an array of numbers, damaged or cut"),
        ("text.npy", "not an array of numbers, damaged or cut"),
        ("half.npy", "not an array of numbers, damaged or cut"),
        ("cut.parquet", "not a Parquet file"),
        ("v.txt", "item vectors are .npy or .parquet, not '.txt'"),
    ],
)
def test_vectors(name: str, expected: str, write: Write, tmp_path: Path) -> None:
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, a=np.ones((2, 2)), b=np.ones(2))
    np.save(tmp_path / "good.npy", np.ones((20, 20)))
    whole = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    (tmp_path / "half.npy").write_bytes((tmp_path / "archive.npy").read_bytes()[:100])
    (tmp_path / "text.npy").write_text("no numbers")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "v.txt").write_text("1 2")
    made = {"source": "columns", "path": write("log.csv", LOG)}
    tables = {"given": {"recipe": "vectors", "path": str(tmp_path / name)}}
    wrong = config({"given": {"items": {"table": "given"}}}, tables, x=made)
    with pytest.raises(ConfigError) as caught:
        check_first_lines(wrong)
    assert str(caught.value).startswith(f"config: tables.given.path: {tmp_path / name}: {expected}")
    assert "\n" not in str(caught.value)
    tables["given"]["path"] = str(tmp_path / "good.npy")
    check_first_lines(config({"given": {"items": {"table": "given"}}}, tables, x=made))


def test_every_file_of_items_that_does_not_fit_has_its_line(write: Write) -> None:
    """Files that a source reads beside its log, and keys that no object of a JSON file has."""
    reviews = write("reviews.json", '{"user_id": "u", "parent_asin": "i", "timestamp": 1, "rating": 5.0}\n')
    yelp = write("yelp.json", '{"user_id": "u", "business_id": "b", "date": "2020-01-01", "stars": 5}\n')
    inter = write("x.inter", "user_id:token\titem_id:token\n1\t2\n")
    histories = write("s.txt", "1 2 3\n")
    films, film_ids = write("films.txt", "1|a|b\n"), write("ids.txt", "1 2 3\n")
    items = write("items.json", '{"id": "i", "titel": "a"}\n{"id": "j", "titel": "b", "brand": "c"}\n')
    sparse = write("sparse.json", '{"id": "i"}\n{"id": "j", "brand": "c"}\n')
    log = write("log.csv", LOG)
    wrong = config(
        amazon={"source": "amazon_2023", "path": reviews, "metadata": write("m.json", '{"parent_asim": "i"}\n')},
        yelp={"source": "yelp", "path": yelp, "businesses": write("b.json", '{"busines_id": "b"}\n')},
        atoms={"source": "recbole", "path": inter, "items_file": write("x.item", "item_ids:token\ttitle:token_seq\n")},
        films={"source": "sequences", "path": histories, "films": films},
        ids={"source": "sequences", "path": histories, "films": write("movies.dat", "1::a::b\n"), "film_ids": film_ids},
        own={"source": "columns", "path": log, "items": {"path": items, "id": "id", "title": "title"}},
        few={"source": "columns", "path": log, "items": {"path": sparse, "id": "id", "title": "title"}},
    )
    with pytest.raises(ConfigError) as caught:
        check_first_lines(wrong, "my.yaml")
    expected = [
        ("datasets.amazon.metadata", "m.json: the objects have no key 'parent_asin' (for item); did you mean"),
        ("datasets.yelp.businesses", "b.json: the objects have no key 'business_id' (for item); did you mean"),
        ("datasets.atoms.items_file", "x.item: line 1: no column 'item_id'; did you mean 'item_ids'?"),
        ("datasets.films.films", "films.txt: expected MovieLens' films"),
        ("datasets.ids.films", "ids.txt: line 1: '1 2 3', expected `item film`"),
        ("datasets.own.items", "items.json: none of the first objects has the key 'title' (for title); did you mean"),
    ]
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected), lines
    for line, (key, said) in zip(lines, expected, strict=True):
        assert line.startswith(f"my.yaml: {key}: ")
        assert said in line


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"raw": ["a"], "embedding": [[1.0]]}, "expected 'raw_id' or 'item', and 'embedding'"),
        ({"raw_id": ["a"], "embeddings": [[1.0]]}, "has no column 'embedding', only ['raw_id', 'embeddings']; did you"),
    ],
)
def test_columns_of_vectors(tmp_path: Path, write: Write, columns: dict[str, Any], said: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "v.parquet")
    tables = {"mine": {"recipe": "vectors", "path": str(tmp_path / "v.parquet")}}
    log = write("log.csv", LOG)
    wrong = config({"t": {"items": {"table": "mine"}}}, tables, own={"source": "columns", "path": log})
    with pytest.raises(ConfigError, match=r"tables\.mine\.path: ") as caught:
        check_first_lines(wrong)
    assert said in str(caught.value)


def extended(write: Write, **more: Any) -> Plan:
    """A config of an own log, with sections added."""
    log = write("log.csv", LOG)
    base = {"datasets": {"own": {"source": "columns", "path": log}}, "experiment": {"datasets": ["own"]}}
    return Plan(load({**base, **more}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item,code\na,1\n", "expected one object of raw item ids to lists of codes, but begins with 'item,code"),
        ('{"a": "1"}', "id 'a' has \"1\", expected a list of codes"),
        ('{"a": ["x"]}', "id 'a' has the code 'x', expected a number from 0"),
        (b"\xff\xfe", "is no JSON"),
        (
            '{"a": ' + "[" * 60_000,
            "codes.json: expected one object of raw item ids to lists of codes, but it is nested",
        ),
    ],
)
def test_first_codes_of_a_file(write: Write, text: str | bytes, said: str) -> None:
    more = {
        "semantic_ids": {"mine": {"quantizer": "given", "path": write("codes.json", text)}},
        "systems": {"t": {"recommender": "tiger", "semantic_ids": "mine"}},
        "experiment": {"datasets": ["own"], "systems": ["t"]},
        "significance": {},
    }
    with pytest.raises(ConfigError, match=r"semantic_ids\.mine\.path: ") as caught:
        check_first_lines(extended(write, **more))
    assert said in str(caught.value)
    more["semantic_ids"]["mine"]["path"] = write("good.json", '{"a": ["<a_1>", "<b_2>"], "b": ' + "[1, 2]}" + " " * 100)
    check_first_lines(extended(write, **more))


def test_a_check_that_follows_a_file_too_deep_is_one_line(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def follows(path: Path) -> None:
        follows(path)

    monkeypatch.setattr("tessera.quantization.given.check_codes", follows)
    more = {
        "semantic_ids": {"mine": {"quantizer": "given", "path": write("codes.json", "{}")}},
        "systems": {"t": {"recommender": "tiger", "semantic_ids": "mine"}},
        "experiment": {"datasets": ["own"], "systems": ["t"]},
        "significance": {},
    }
    with pytest.raises(ConfigError, match=r"semantic_ids\.mine\.path: .*codes\.json: is nested too deeply"):
        check_first_lines(extended(write, **more))


def test_lists_of_ids_and_negatives(write: Write) -> None:
    more = {
        "recommend": {"users": write("users.txt", "\n\n"), "items": write("items.txt", b"\xff\n")},
        "evaluation": {"candidates": {"kind": "file", "path": write("negatives.txt", "u\n")}},
    }
    with pytest.raises(ConfigError) as caught:
        check_first_lines(extended(write, **more), "my.yaml")
    items, users, negatives = str(caught.value).splitlines()
    assert items.startswith("my.yaml: recommend.items: ")
    assert "no UTF-8 text (byte 0); expected one item id a line" in items
    assert users.startswith("my.yaml: recommend.users: ")
    assert users.endswith("is empty; expected one user id a line")
    assert negatives.startswith("my.yaml: evaluation.candidates.path: ")
    assert "expected `user negative negative ...` a line" in negatives
    good = {
        "recommend": {"users": write("u.txt", "u\n"), "items": write("i.txt", "1\n")},
        "evaluation": {"candidates": {"kind": "file", "path": write("n.txt", "\ufeff\nu 1 2\n")}},
    }
    check_first_lines(extended(write, **good))


@pytest.mark.parametrize(
    ("section", "key", "said"),
    [
        ({"cleaning": {"min_rating": 4.0}}, "cleaning.min_rating", "name their column in `rating`"),
        ({"cleaning": {"since": "2020-01-01"}}, "cleaning.since", "the log has none"),
        ({"cleaning": {"until": "2020-01-01"}}, "cleaning.until", "the log has none"),
        ({"split_column": "part"}, "split_column", "split leave_one_out does not read it"),
        ({"split": {"kind": "given"}}, "split_column", "split given needs the column"),
        ({"items": {"path": "x", "id": "item", "image": "file"}}, "items.image", "no folder holds them"),
        (
            {"items": {"path": "x", "id": "item", "text": ["colour"]}, "prompt": {"attributes": ["colour", "color"]}},
            "prompt.attributes.1",
            "'color' is no text of the items (`items.title`, `items.text`); did you mean 'colour'",
        ),
        ({"prompt": {"attributes": ["title"]}}, "prompt.attributes.0", "'title' is no text of the items"),
    ],
)
def test_keys_that_would_do_nothing_are_refused(section: dict[str, Any], key: str, said: str, write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        config(shop={"source": "columns", "path": write("log.csv", LOG), **section})
    assert f"datasets.shop.{key}: " in str(caught.value)
    assert said in str(caught.value)


def test_lists_of_items_with_an_attribute_that_no_item_has_are_refused(write: Write) -> None:
    """They are made last; the config tells the attributes of a log of columns."""
    shop = {"source": "columns", "path": write("log.csv", LOG), "items": {"path": "x", "id": "item", "text": ["brand"]}}
    given = {"datasets": {"shop": shop}, "experiment": {"datasets": ["shop"], "systems": ["popular"]}}
    with pytest.raises(ConfigError, match=r"recommend.attribute.brnd: is no attribute of .*shop.*did you mean 'brand'"):
        load({**given, "recommend": {"attribute": {"brnd": "Acme"}}})
    load({**given, "recommend": {"attribute": {"brand": "Acme"}}})


@pytest.mark.parametrize("place", ["log", "items"])
def test_a_checksum_of_a_local_file_is_refused(place: str, write: Write) -> None:
    log, checksum = write("log.csv", LOG), {"sha256": "0" * 64}
    items = {"path": log, "id": "item", **(checksum if place == "items" else {})}
    shop = {"source": "columns", "path": log, "items": items, **(checksum if place == "log" else {})}
    with pytest.raises(ConfigError, match=r"log\.csv: is no URL; sha256 is compared with what a URL gives"):
        check_files(config(shop=shop))


PICTURED: dict[str, dict[str, Any]] = {
    "captions.looks": {
        "captions": {"looks": {"model": "small"}},
        "tables": {"seen": {"recipe": "text", "model": "small", "captions": ["looks"]}},
    },
    "tables.seen": {"tables": {"seen": {"recipe": "hidden", "model": "small"}}},
}


@pytest.mark.parametrize("key", PICTURED)
def test_what_reads_pictures_alone_needs_a_folder_of_them(key: str, write: Write, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    shop = {"source": "columns", "path": write("log.csv", LOG)}
    made = {
        "models": {"small": {"built": "qwen2.5-vl"}}, "systems": {"seen": {"items": {"table": "seen"}}},
        "experiment": {"datasets": ["shop"], "systems": ["seen"]}, "significance": {}, **PICTURED[key],
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check_files(Plan(load({"datasets": {"shop": shop}, **made})))
    assert f"{key}: reads pictures, and datasets.shop has none: say in `images`" in str(caught.value)
    check_files(Plan(load({"datasets": {"shop": {**shop, "images": str(tmp_path / "pictures")}}, **made})))
