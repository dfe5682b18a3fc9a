"""Files of scores and lists that other programs made: judged as our own systems are, rank by rank."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pattern import ITEMS, make_run

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import read_table
from tessera.data import scores as reader
from tessera.data.dataset import load_dataset
from tessera.data.files import DataFileError, parts
from tessera.data.scores import ScoresError, read_scores
from tessera.evaluation.histories import slices
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run
from tessera.settings.base import ConfigError
from tessera.settings.evaluation import Evaluation
from tessera.settings.systems.given import GivenSystem

CATALOGUE = [f"i{n}" for n in range(1, ITEMS + 1)]


def own_scores(data: Path, folder: Path, system: str = "item_knn") -> pl.DataFrame:
    """All scores of one of our systems, as a program would write them."""
    run = make_run(system={"recommender": system})
    dataset = load_dataset(data)
    train_run(run, data, RunInputs(), folder / "own" / "model.safetensors", folder / "state")
    scorer = load_scorer(folder / "own" / "model.safetensors", run, dataset.train_counts, RunInputs())
    cases = dataset.cases("test")
    scores = scorer(slices(cases.items, cases.offsets[:-1], cases.lengths, cases.users, None)).numpy()
    return pl.DataFrame(
        {
            "user": np.repeat([f"u{user}" for user in cases.users], ITEMS),
            "item": CATALOGUE * len(cases),
            "score": scores.ravel(),
        }
    )


def judged(data: Path, folder: Path, file: Path, settings: Evaluation, **keys: object) -> tuple[pl.DataFrame, dict]:
    """The evaluation table and the metrics of a file."""
    run = make_run(system={"recommender": "given", "path": str(file), **keys})
    inputs = RunInputs(source=[str(part) for part in parts(file)])
    model = folder / "given" / "model.safetensors"
    train_run(run, data, inputs, model, folder / "state")
    evaluate_run(run, settings, model, data, RunInputs(), None, folder / "e.parquet", folder / "m.json")
    return pl.DataFrame(read_table(folder / "e.parquet", "evaluation")), read_json(folder / "m.json")


def own(data: Path, folder: Path, settings: Evaluation, system: str = "item_knn") -> tuple[pl.DataFrame, dict]:
    run = make_run(system={"recommender": system})
    model = folder / "own" / "model.safetensors"
    evaluate_run(run, settings, model, data, RunInputs(), None, folder / "oe.parquet", folder / "om.json")
    return pl.DataFrame(read_table(folder / "oe.parquet", "evaluation")), read_json(folder / "om.json")


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("ties", ["mean", "pessimistic"])
@pytest.mark.parametrize("system", ["item_knn", "popular"])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_all_scores_of_our_own_system_give_its_ranks(data, tmp_path, mask, ties, system, ending):
    table = own_scores(data, tmp_path, system).sample(fraction=1.0, shuffle=True, seed=1)
    file = tmp_path / f"scores.{ending}"
    table.write_parquet(file) if ending == "parquet" else table.write_csv(file)
    settings = Evaluation(mask_seen=mask, ties=ties)
    (expected, metrics), (found, given) = (
        own(data, tmp_path, settings, system), judged(data, tmp_path, file, settings),
    )  # fmt: skip
    assert expected["rank"].n_unique() > 5
    for column in ("user", "item", "rank", "candidates", "repeat"):
        assert found[column].equals(expected[column]), column
    for name, value in metrics["metrics"].items():
        # the lists of equal items have an order of their own
        if system == "item_knn" or not name.startswith(("coverage", "gini", "popularity")):
            assert given["metrics"][name] == pytest.approx(value, abs=0.02 if name.startswith("gini") else 1e-12), name
    assert given["groups"].keys() == metrics["groups"].keys()
    assert given["remarks"] == ["ranked by a file of another program"]
    assert not given["trained"]


def test_lists_are_exact_up_to_their_length_and_hold_nothing_else(data, tmp_path):
    table = own_scores(data, tmp_path)
    seen = load_dataset(data)
    settings = Evaluation(cutoffs=[2, 4, 7])
    expected, _ = own(data, tmp_path, settings)
    # a program that filters what was seen: the first 7 of the others
    histories = {f"u{u}": set(seen.cases("test").history(n)) for n, u in enumerate(seen.cases("test").users)}
    rows = [
        {"u": user, "i": row["item"], "place": place}
        for (user,), part in table.group_by("user", maintain_order=True)
        for place, row in enumerate(
            [r for r in part.sort("score", descending=True, maintain_order=True).iter_rows(named=True)
             if int(r["item"][1:]) not in histories[user]][:7]
        )
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(tmp_path / "lists.csv")
    names = {"user": "u", "item": "i", "rank": "place"}
    found, given = judged(data, tmp_path, tmp_path / "lists.csv", settings, **names)
    alone = expected.filter(pl.col("rank") == pl.col("rank").round())  # where scores tie, a list has to choose
    both = found.join(alone, on="user", suffix="_own")
    inside = both.filter((pl.col("rank_own") <= 7) & pl.col("rank_own").is_finite())
    assert len(inside) > 20
    same = (inside["rank"] == inside["rank_own"]).sum()
    assert same == len(inside)
    beyond = both.filter((pl.col("rank_own") > 7) & pl.col("rank_own").is_finite())
    assert len(beyond) > 5
    # behind all seven, in the middle of the rest
    middle = 7 + 1 + (beyond["candidates"] - 7 - 1) / 2
    assert beyond["rank"].to_list() == middle.to_list()
    assert found["recommended"].list.len().max() == 7
    assert given["remarks"] == ["ranked by a file of another program"]  # 7 items are enough for the cut-offs


def test_parts_in_a_folder_are_one_file(data, tmp_path):
    table = own_scores(data, tmp_path)
    table.write_parquet(tmp_path / "whole.parquet")
    (tmp_path / "parts").mkdir()
    for number, start in enumerate(range(0, len(table), 700)):
        table.slice(start, 700).write_parquet(tmp_path / "parts" / f"part-{number}.parquet")
    (tmp_path / "parts" / "_SUCCESS").touch()
    settings = Evaluation()
    whole, metrics = judged(data, tmp_path, tmp_path / "whole.parquet", settings)
    parted, same = judged(data, tmp_path, tmp_path / "parts", settings)
    assert len(parts(tmp_path / "parts")) > 2
    assert parted.equals(whole)
    assert same["metrics"] == metrics["metrics"]


def test_users_without_a_row_and_short_lists_are_remarked(data, tmp_path, caplog):
    table = own_scores(data, tmp_path).filter(~pl.col("user").is_in(["u3", "u9"]))
    best = table.sort("score", descending=True).group_by("user", maintain_order=True).head(12)
    best.write_parquet(tmp_path / "s.parquet")
    with caplog.at_level(logging.INFO):
        found, given = judged(data, tmp_path, tmp_path / "s.parquet", Evaluation(cutoffs=[5, 10]))
    lost = found.filter(pl.col("user").is_in([3, 9]))
    finite = lost.filter(pl.col("rank").is_finite())
    assert finite["rank"].to_list() == ((finite["candidates"] + 1) / 2).to_list()
    assert lost["recommended"].list.len().to_list() == [0, 0]
    assert "no row for 2 of 80 test users (2.5%), for whom all items tie" in given["remarks"]
    dataset = load_dataset(data)
    cases = dataset.cases("test")
    lists = {user: {int(i[1:]) for i in part["item"]} for (user,), part in best.group_by("user")}
    usable = [
        len(lists[f"u{user}"] - set(cases.history(n).tolist()))
        for n, user in enumerate(cases.users) if f"u{user}" in lists
    ]  # fmt: skip
    short = [size for size in usable if size < 10]
    told = f"fewer than 10 items that are not masked for {len(short)} test users, the fewest {min(short)}"
    assert any(told in remark for remark in given["remarks"])
    assert "meets 78 of 80 test users (97.5%); not met: 'u3', 'u9'" in caplog.text


def read(file: Path, folder: Path, **keys: str) -> reader.GivenScores:
    settings = GivenSystem(path=str(file), **keys)
    return read_scores(settings, parts(file), ["", "a", "b", "c"], ["", "x", "y", "z"], ["a", "c"], folder)


def test_rows_that_say_nothing_are_counted_and_kept_aside(tmp_path, caplog):
    file = tmp_path / "s.csv"
    file.write_text(
        "user,item,score\na,x,1.5\na,y,1.5\na,x,7\nnobody,x,1\nb,what,2\n,x,3\nb,,4\nc,z,-inf\nc,y,-2\nc,x,3,9\nc,x,1\n"
    )
    with caplog.at_level(logging.INFO):
        made = read(file, tmp_path)
    assert made.offsets.tolist() == [0, 0, 2, 2, 4]
    assert made.items.tolist() == [1, 2, 1, 2]  # of a user and item the first row counts
    assert made.levels.tolist() == [1, 1, 2, 1]
    aside = read_table(tmp_path / "rejected.parquet", "rejected").to_pylist()
    assert {(row["line"], row["reason"]) for row in aside} == {
        (4, "user and item stand there already"), (5, "user is not in the dataset"),
        (6, "item is not in the dataset"), (7, "user is missing"), (8, "item is missing"),
        (11, "4 fields, expected 3"),
    }  # fmt: skip
    assert [row["text"] for row in aside if row["line"] in (4, 5)] == ["a x 7.0", "nobody x 1.0"]
    assert "rejected 6 rows" in caplog.text
    assert "1 more are minus infinity" in caplog.text
    assert not list(tmp_path.glob(".scores-*"))


def test_a_rank_that_is_set_aside_is_shown_as_it_is_written(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("user,item,rank\na,x,1\na,x,2\nnobody,x,3\nc,y,1\n")
    read(file, tmp_path)
    aside = read_table(tmp_path / "rejected.parquet", "rejected").to_pylist()
    assert {row["text"] for row in aside} == {"nobody x 3", "a x 2"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("names", [["part-0", "part-1", "part-2"], ["day=3/part-0", "day=4/part-0", "day=4/part-1"]])
@pytest.mark.parametrize("blocks", [1, 3, 1 << 20])
def test_rows_kept_aside_name_their_part(tmp_path, monkeypatch, names, form, blocks):
    monkeypatch.setattr(reader, "BLOCK_ROWS", blocks)
    texts = [
        [("a", "x", 1.5), ("nobody", "x", 1.0), (None, "x", 3.0)],
        [("a", "x", 7.0), ("c", "what", 2.0), ("c", "z", -2.0)],
        [("c", None, 4.0), ("c", "z", 1.0), ("nobody", "y", 1.0), ("a", "x", 1.5)],
    ]
    for name, rows in zip(names, texts, strict=True):
        path = tmp_path / "scores" / f"{name}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame(rows, ["user", "item", "score"], orient="row")
        frame.write_csv(path) if form == "csv" else frame.write_parquet(path)
    (tmp_path / "scores" / "part-9.csv").write_text("user,item,score\n")  # a part without rows
    made = read(tmp_path / "scores", tmp_path)
    assert made.items.tolist() == [1, 3]
    aside = read_table(tmp_path / "rejected.parquet", "rejected").to_pylist()
    shift = 1 if form == "csv" else 0  # a header is a line
    expected = [
        (0, 2, "user is not in the dataset"), (0, 3, "user is missing"), (1, 1, "user and item stand there already"),
        (1, 2, "item is not in the dataset"), (2, 1, "item is missing"), (2, 2, "user and item stand there already"),
        (2, 3, "user is not in the dataset"), (2, 4, "user and item stand there already"),
    ]  # fmt: skip
    assert sorted((row["file"], row["line"], row["reason"]) for row in aside) == [
        (f"{names[part]}.{form}", line + shift, reason) for part, line, reason in expected
    ]


def test_rows_kept_aside_of_a_lone_part_name_its_day(tmp_path):
    (tmp_path / "scores" / "day=3").mkdir(parents=True)
    (tmp_path / "scores" / "day=3" / "part-0.csv").write_text("user,item,score\na,x,1\nb,what,2\nc,x,1\n")
    read(tmp_path / "scores", tmp_path)
    (row,) = read_table(tmp_path / "rejected.parquet", "rejected").to_pylist()
    assert (row["file"], row["line"]) == ("day=3/part-0.csv", 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("user,item,score\na,x,1\na,y,nan\n", r"row 3: the score of item 'y' for user 'a' is 'nan', expected a finite"),
        ("user,item,score\na,x,1\na,y,\n", r"row 3: the score of item 'y' for user 'a' is missing"),
        ("user,item,score\na,x,much\n", r"row 2: the score of item 'x' for user 'a' is 'much'"),
        ("user,item,score\na,x,inf\n", r"row 2: the score of item 'x' for user 'a' is 'inf'"),
        ("user,item,rank\na,x,nan\n", r"row 2: the rank of item 'x' for user 'a' is 'nan'"),
        ("user,item,scor\na,x,1\n", r"no column 'score' and no 'rank'; .*; did you mean 'scor'\?"),
        ("usr,item,score\na,x,1\n", r"no column 'user' \(for user\); did you mean 'usr'\?"),
        ("user,item,score\nA,x,1\nC,y,1\n", r"meets 0 of 2 test users .* 2 more would meet in one case"),
        ("user,item,score\na,X,1\n", r"meets 0 of 3 items of the dataset .* 1 more would meet in one case"),
        ("user,item,score\nb,x,1\n", r"has no row of a test user; test users: 'a', 'c'"),
        ("user,item,score\n", r"holds no row"),
    ],
)
def test_files_that_cannot_be_judged_are_refused(tmp_path, text, told):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises((ScoresError, DataFileError), match=told):
        read(tmp_path / "s.csv", tmp_path)
    assert not list(tmp_path.glob(".scores-*"))


def test_numbers_in_parquet_are_refused_alike(tmp_path):
    pl.DataFrame({"user": ["a"], "item": ["x"], "score": [float("nan")]}).write_parquet(tmp_path / "s.parquet")
    with pytest.raises(ScoresError, match=r"row 1: the score of item 'x' for user 'a' is 'NaN'"):
        read(tmp_path / "s.parquet", tmp_path)


def test_lists_in_parquet_are_refused(tmp_path):
    pl.DataFrame({"user": ["a"], "item": [["x", "y"]], "rank": [1]}).write_parquet(tmp_path / "s.parquet")
    told = r"s\.parquet: column 'item' \(for item\) holds .*list.*, expected texts or numbers"
    with pytest.raises(DataFileError, match=told):
        reader.check_scores(GivenSystem(path="s.parquet"), tmp_path / "s.parquet")


def test_blocks_change_nothing(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [(u, i, int(rng.integers(3))) for u in "abc" for i in "xyz"] + [("a", "x", 9), ("q", "x", 1)]
    table = pl.DataFrame(rows, ["user", "item", "score"], orient="row").sample(fraction=1, shuffle=True, seed=2)
    table.write_csv(tmp_path / "s.csv")
    whole = read(tmp_path / "s.csv", tmp_path)
    expected = read_table(tmp_path / "rejected.parquet", "rejected")
    for size in (1, 2, 5):
        monkeypatch.setattr(reader, "BLOCK_ROWS", size)
        again = read(tmp_path / "s.csv", tmp_path)
        for name in ("offsets", "items", "levels"):
            assert getattr(again, name).tolist() == getattr(whole, name).tolist()
        assert read_table(tmp_path / "rejected.parquet", "rejected").equals(expected)


def test_whole_numbers_meet_whether_or_not_a_program_wrote_them_as_floats(tmp_path):
    pl.DataFrame({"user": [1.0, 2.0], "item": [5.0, 6.0], "rank": [1, 1]}).write_parquet(tmp_path / "s.parquet")
    settings = GivenSystem(path="s.parquet")
    made = read_scores(settings, [tmp_path / "s.parquet"], ["", "1", "2"], ["", "5", "6"], ["1"], tmp_path)
    assert made.items.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"score": "a", "rank": "b"}, "both named"),
        ({"seeds": [1, 2]}, r"one file for 2 seeds"),
        ({"seeds": [1, 1], "path": "{seed}"}, "twice"),
        ({"scor": "a"}, "did you mean 'score'"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(keys, told):
    with pytest.raises(ConfigError, match=told):
        make_run(system={"recommender": "given", "path": "x.csv", **keys})
