"""A finished run in the hands of a person: every system, raw ids in and out, with and without the dataset."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_mme_sid
import torch
import yaml
from pattern import ITEMS, make_run, write_dataset, write_interests_of
from typer.testing import CliRunner

import tessera
from tessera import command
from tessera.artifacts.codes import ABSENT, Part, SemanticIds, write_codes
from tessera.artifacts.files import read_json, write_json
from tessera.artifacts.models import write_model
from tessera.artifacts.sequences import write_item_sequences
from tessera.artifacts.tables import ArtifactError, read_item_table, read_table, write_item_table, write_table
from tessera.data.dataset import ids_digest, load_dataset
from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.train import train_run
from tessera.serving.catalogue import Catalogue, read_catalogue
from tessera.serving.folder import run_files
from tessera.serving.lists import best
from tessera.serving.recommender import NoHistory, UnknownItems
from tessera.settings.config import load as load_config
from tessera.settings.evaluation import Evaluation
from tessera.settings.language import FolderModel

TIGER = {
    "recommender": "tiger",
    "semantic_ids": "c",
    "dim": 16,
    "inner_dim": 32,
    "layers": 1,
    "heads": 2,
    "head_dim": 8,
}
MIXTURE = {"recommender": "markov_mixture", "similar": {"table": "t"}, "weight": 0.2, "strength": 2.0}
SYSTEMS: dict[str, Any] = {
    "popular": {"recommender": "popular"},
    "item_knn": {"recommender": "item_knn"},
    "markov": {"recommender": "markov"},
    "ids": {"items": "ids"},
    "table": {"items": {"table": "t", "adapter": [8]}},
    "codes": {"items": {"semantic_ids": "c", "combine": "concat", "table": "t", "adapter": [8]}},
    "dual_view": {"items": {"kind": "dual_view", "text": "t", "fine": "f", "width": 8, "adapter": [8]}},
    "pad": {"recommender": "pad", "table": "t", "adapter": [8]},
    "findrec": {"recommender": "findrec", "text": "t", "image": "t", "width": 8},
    "tpad": {"recommender": "tpad", "text": "t", "image": "t", "disentangling": {"width": 4, "hidden": 8, "steps": 5}},
    "eimf": {"recommender": "eimf", "interests": "w", "dim": 16, "max_length": 12, "adapter": [8]},
    "cider": {"recommender": "cider", "items": {"table": "t", "adapter": [8]}, "counterfactual": {"tau": 0.4}},
    "markov_mixture": {**MIXTURE, "base": {"items": {"table": "t", "adapter": [8]}}},
    "markov_similar": {"recommender": "markov", "similar": {"table": "t"}},
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "image": "t", "adapter": [8]},
    "tiger": {**TIGER, "beams": 30},
    "tiger_exact": {**TIGER, "scoring": "exact"},
    "mme_sid": {},
}
WITH_VECTORS = ["ids", "table", "codes", "dual_view", "pad", "findrec", "tpad", "eimf", "i3_mrec", "cider", "mme_sid"]
WITHOUT_CODES = 7


def write_inputs(root: Path) -> None:
    """A table, codes (of all items but one) and what MME-SID reads, where the workflow keeps them."""
    rng = np.random.default_rng(1)
    numbers = np.arange(1, ITEMS + 1)
    write_item_table(root / "tables/t.parquet", numbers, rng.normal(size=(ITEMS, 6)).astype(np.float32))
    owners = np.repeat(numbers, 2)
    write_item_sequences(
        root / "tables/f.parquet", owners, ["a", "b"] * ITEMS, rng.normal(size=(2 * ITEMS, 5)).astype(np.float32)
    )
    write_interests_of(root / "tables/w.parquet", range(2, 60, 3))
    codes = np.full((ITEMS + 1, 2), ABSENT, np.int64)
    codes[1:] = np.stack([(numbers - 1) // 6, (numbers - 1) % 6], 1)
    codes[WITHOUT_CODES] = ABSENT
    path = root / "semantic_ids/c/codes.parquet"
    write_codes(path, SemanticIds(codes, (Part("t", (6, 6)),)), {}, {})
    books = {f"codebooks.0.{level}": torch.from_numpy(rng.normal(size=(6, 6)).astype(np.float32)) for level in (0, 1)}
    write_model(path.with_name("model.safetensors"), books, {})
    made = tiny_mme_sid.write_inputs(root / "made")
    for name, table in made.tables.items():
        shutil.move(table, root / f"tables/{name}.parquet")
    (root / "semantic_ids/codes").mkdir()
    for file in ("codes.parquet", "model.safetensors"):
        shutil.move(root / "made" / file, root / "semantic_ids/codes" / file)
    shutil.copytree(root / "made/model", root / "models/tiny")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`results/x` as the workflow leaves it: every system, trained a little and judged."""
    root = tmp_path_factory.mktemp("world") / "results/x"
    write_dataset(root / "data")
    write_inputs(root)
    for name, system in SYSTEMS.items():
        run = tiny_mme_sid.make_run({"epochs": 1}) if name == "mme_sid" else make_run(system=system, epochs=2)
        folder = root / "runs" / name / run.recommender / "seed-1"
        folder.mkdir(parents=True)
        # the files of a run are found by its description
        write_model(folder / "model.safetensors", {"x": torch.zeros(1)}, {"run": run.model_dump(mode="json")})
        inputs = run_files(folder).inputs
        train_run(run, root / "data", inputs, folder / "model.safetensors", root.parent / "state")
        evaluate_run(
            run, Evaluation(), folder / "model.safetensors", root / "data", inputs, None,
            folder / "evaluation.parquet", folder / "metrics.json",
        )  # fmt: skip
    return root


def folder_of(results: Path, name: str) -> Path:
    (found,) = (results / "runs" / name).glob("*/seed-1")
    return found


@pytest.mark.parametrize("name", SYSTEMS)
def test_scores_are_those_of_the_judge(name: str, results: Path) -> None:
    recommender = tessera.load(folder_of(results, name), device="cpu")
    raw = recommender.catalogue.raw_ids
    cases = load_dataset(results / "data").cases("test")
    judged = read_table(folder_of(results, name) / "evaluation.parquet", "evaluation")
    assert judged.column("user").to_pylist() == cases.users.tolist()
    histories = [[raw[item] for item in cases.history(case)] for case in range(len(cases))]
    found = recommender.recommend(histories, k=ITEMS, seen=True)
    lists = dict(list(found.groupby("history")))
    compared = 0
    for case, (item, score) in enumerate(
        zip(judged.column("item").to_pylist(), judged.column("score").to_pylist(), strict=True)
    ):
        own = dict(zip(lists[case].item, lists[case].score, strict=True))
        assert len(own) == len(lists[case])
        if np.isneginf(score):
            assert raw[item] not in own  # what cannot be written is not recommended
        else:
            assert own[raw[item]] == pytest.approx(score, rel=1e-5, abs=1e-5)
            compared += 1
        assert lists[case].score.is_monotonic_decreasing
    assert compared > len(cases) // 2
    unseen = recommender.recommend(histories, k=10)
    for case, judges in enumerate(judged.column("recommended").to_pylist()):
        ours = unseen[unseen.history == case]
        assert not set(ours.item) & set(histories[case])
        # the judge keeps the target in, seen or not, and takes equals in any order: the scores are compared
        if cases.targets[case] not in cases.history(case):
            own = dict(zip(lists[case].item, lists[case].score, strict=True))
            theirs = [own[raw[item]] for item in judges[:10]]
            np.testing.assert_allclose(ours.score.to_numpy()[: len(theirs)], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_saved_run_needs_nothing_else(name: str, results: Path, tmp_path: Path) -> None:
    histories = [["i1", "i2", "i3"], ["i9"]]
    away = tmp_path / "away"
    shutil.copytree(results, away / "results/x")
    before = tessera.load(folder_of(away / "results/x", name), device="cpu")
    expected = before.recommend(histories, k=5)
    saved = before.save(tmp_path / "saved")
    shutil.rmtree(away)
    after = tessera.load(saved, device="cpu")
    assert after.recommend(histories, k=5).equals(expected)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    again = after.save(tmp_path / "again")
    assert tessera.load(again, device="cpu").recommend(histories, k=5).equals(expected)
    with pytest.raises(FileExistsError, match="is there already"):
        before.save(saved)


def test_a_language_model_of_a_folder_is_saved_with_the_run(results: Path, tmp_path: Path) -> None:
    away = tmp_path / "away/results/x"
    shutil.copytree(results, away)
    shutil.move(away / "models/tiny", tmp_path / "away/model")
    run = folder_of(away, "mme_sid")
    description = read_json(run / "model.json")
    description["run"]["model"] = FolderModel(folder=str(tmp_path / "away/model")).model_dump(mode="json")
    write_json(run / "model.json", description)
    before = tessera.load(run, device="cpu")
    expected = before.recommend(["i1", "i2"], k=5)
    assert expected.equals(tessera.load(folder_of(results, "mme_sid"), device="cpu").recommend(["i1", "i2"], k=5))
    saved = before.save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "away")
    assert tessera.load(saved, device="cpu").recommend(["i1", "i2"], k=5).equals(expected)


@pytest.mark.parametrize("name", SYSTEMS)
def test_vectors_are_those_that_score(name: str, results: Path) -> None:
    recommender = tessera.load(folder_of(results, name), device="cpu")
    if name not in WITH_VECTORS:
        for ask in (lambda: recommender.similar("i1"), lambda: recommender.encode(["i1"])):
            with pytest.raises(ValueError, match=": s has no vectors of items and histories; `recommend` works"):
                ask()
        return
    histories = [["i4", "i5"], [f"i{1 + number % ITEMS}" for number in range(60)]]
    states = recommender.encode(histories)
    np.testing.assert_allclose(recommender.encode(histories[1]), states[1], rtol=1e-5, atol=1e-6)
    vectors = recommender.scorer.item_vectors.detach().numpy()
    found = recommender.recommend(histories, k=ITEMS, seen=True)
    for number, state in enumerate(states):
        rows = found[found.history == number]
        places = [recommender.catalogue.numbers[item] - 1 for item in rows.item]
        np.testing.assert_allclose(rows.score, (vectors @ np.atleast_2d(state).T).max(1)[places], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"unknown item 'i99' \(near: 'i9'"):
        recommender.similar("i99")
    with pytest.raises(ValueError, match=r"k: expected a whole number, 1 or more \(got 0\)"):
        recommender.similar("i3", 0)
    near = recommender.similar("i3", 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[2]
    cosines[2] = -2
    assert near.item.tolist() == [f"i{1 + place}" for place in np.argsort(-cosines)[:4]]
    np.testing.assert_allclose(near.score, np.sort(cosines)[::-1][:4], rtol=1e-4, atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tessera.serving.recommender.MOST_DENSE", 1)  # as large catalogues are asked
        large = recommender.similar("i3", 4)
    assert large.drop(columns="score").equals(near.drop(columns="score"))
    np.testing.assert_allclose(large.score, near.score, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def markov(results: Path) -> Any:
    return tessera.load(folder_of(results, "markov"))


def test_one_history_or_several(markov: Any) -> None:
    one = markov.recommend(["i4", "i5"], k=3)
    assert list(one.columns) == ["item", "title", "score"]
    assert one.item[0] == "i6"
    assert one.title[0] == "Item 6"
    several = markov.recommend([["i4", "i5"], ("i8",)], k=3)
    assert list(several.columns) == ["history", "item", "title", "score"]
    assert several[several.history == 0].drop(columns="history").equals(one)
    assert markov.recommend(np.array(["i4", "i5"]), k=3).equals(one)
    assert len(markov.recommend(["i4"], k=1000)) == ITEMS - 1


def test_unknown_ids_are_told_and_left_out(markov: Any) -> None:
    with pytest.warns(UnknownItems, match=r"unknown item 'I-12' \(near: 'i12'") as told:
        found = markov.recommend(["I-12", "i4", "i5"], k=3)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert found.equals(markov.recommend(["i4", "i5"], k=3))
    with pytest.warns(UnknownItems, match="and 3 more"):
        markov.recommend([f"no-{number}" for number in range(8)] + ["i1"])
    with pytest.raises(ValueError, match=r"unknown item 'i99' \(near: 'i9'"):
        markov.catalogue.among(["i99"])


def test_an_id_that_lost_its_zeros_is_near_to_its_own() -> None:
    raw_ids = ["", *(f"{number:05d}" for number in range(30)), "A0000012"]
    catalogue = Catalogue(Path("items.parquet"), raw_ids, [""] * len(raw_ids), np.zeros(len(raw_ids), np.int64))
    assert catalogue.find([7])[1] == ["7"]
    for unknown, near in (("7", "00007"), ("7.0", "00007"), ("007", "00007"), ("0", "00000"), ("a0000012", "A0000012")):
        assert catalogue.nearest(unknown)[0] == near, unknown


def test_ids_are_known_however_a_whole_number_is_written() -> None:
    catalogue = Catalogue(Path("x"), ["", "901", "902", "903.0", "1.5"], [""] * 5, np.ones(5, np.int64))
    written = [901, 901.0, np.float64(902), "902.0", np.int64(903), 903.0, 1.5, " 901 ", np.float32(902)]
    known, unknown = catalogue.find([*written, None, float("nan"), True, "0901"])
    assert known.tolist() == [1, 1, 2, 2, 3, 3, 4, 1, 2]
    assert unknown == ["None", "nan", "True", "0901"]
    both = Catalogue(Path("x"), ["", "7", "7.0"], [""] * 3, np.ones(3, np.int64))
    assert both.find(["7.0", "7"])[0].tolist() == [2, 1]
    mask, unknown = catalogue.among(["901.0", "902.0", "904.0"])  # lines of a stock list
    assert (np.flatnonzero(mask).tolist(), unknown) == ([1, 2], ["904.0"])


def test_the_command_tells_warnings_in_a_line(results: Path) -> None:
    done = CliRunner().invoke(command.app, ["recommend", str(folder_of(results, "markov")), "i4", "nothere", "-k", "2"])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "nothere" in line]
    assert line.startswith("WARNING: unknown item 'nothere'")
    assert "command.py" not in done.stderr


def test_no_history_gets_popular_items(markov: Any) -> None:
    popularity = markov.catalogue.popularity
    order = sorted(range(1, ITEMS + 1), key=lambda item: (-popularity[item], item))[:5]
    for empty in ([], ["nobody-knows"]):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = markov.recommend(empty, k=5)
        assert [w for w in told if w.category is NoHistory]
        assert found.item.tolist() == [f"i{item}" for item in order]
        assert found.score.tolist() == [popularity[item] for item in order]
    with pytest.warns(NoHistory, match=r"no known item in 1 of 2 histories \(the first is number 1\)"):
        both = markov.recommend([["i4", "i5"], []], k=5)
    assert both[both.history == 1].item.tolist() == found.item.tolist()
    assert both[both.history == 0].item.tolist() == markov.recommend(["i4", "i5"], k=5).item.tolist()


def test_filters(markov: Any, tmp_path: Path) -> None:
    found = markov.recommend(["i4", "i5"], k=5, items=["i5", "i20", "i21"])
    assert set(found.item) == {"i20", "i21"}
    assert "i5" in set(markov.recommend(["i4", "i5"], k=5, items=["i5", "i20"], seen=True).item)
    with pytest.warns(UnknownItems, match="items: unknown item"):
        markov.recommend(["i4"], items=["i20", "x"])
    with pytest.raises(ValueError, match="nothing to choose from"):
        markov.recommend(["i4"], items=["x"])
    with pytest.raises(ValueError, match="attribute 'brand': no item has it"):
        markov.recommend(["i4"], attribute={"brand": "Acme"})
    table = read_table(markov.catalogue.path, "items")
    brands = [[("brand", "Acme" if number % 2 else "Other")] if number > 2 else [] for number in range(ITEMS)]
    kinds = pa.array(brands, pa.map_(pa.string(), pa.string()))
    write_table(tmp_path / "items.parquet", table.set_column(3, "attributes", kinds), "items")
    catalogue = read_catalogue(tmp_path / "items.parquet", markov.catalogue.popularity)
    chosen = catalogue.having({"brand": "Acme"})
    assert np.flatnonzero(chosen).tolist() == [n + 1 for n in range(ITEMS) if n > 2 and n % 2]
    assert np.flatnonzero(catalogue.having({"brand": ["Acme", "Other"]})).tolist() == list(range(4, ITEMS + 1))
    assert np.flatnonzero(catalogue.having({"brand": "Acme"}) & catalogue.having({"brand": "Other"})).tolist() == []
    wider = replace(catalogue, raw_ids=[*catalogue.raw_ids, "a", "b"], new=({"brand": "Acme"}, {"colour": "red"}))
    assert np.flatnonzero(wider.having({"brand": "Acme"})).tolist() == [*np.flatnonzero(chosen).tolist(), ITEMS + 1]
    assert np.flatnonzero(wider.having({"colour": ["red", "red"]})).tolist() == [ITEMS + 2]
    assert not wider.having({"brand": "Acme", "colour": "red"}).any()
    with pytest.raises(ValueError, match="no item has the value 'Acne'; did you mean 'Acme'"):
        catalogue.having({"brand": "Acne"})
    with pytest.raises(ValueError, match="'brnd': no item has it; did you mean 'brand'"):
        catalogue.having({"brnd": "Acme"})


def test_what_is_no_history_is_refused(markov: Any) -> None:
    with pytest.raises(TypeError, match=r"a history is a list of item ids"):
        markov.recommend("i4")
    for unordered in ({"i4", "i5"}, {"item": "i4"}, pd.DataFrame({"item": ["i4"]}), 7, b"i4"):
        with pytest.raises(TypeError, match=r"a history is a list of item ids"):
            markov.recommend(unordered)
        if isinstance(unordered, (set, dict)):
            with pytest.raises(TypeError, match=r"a history is a list of item ids"):
                markov.recommend([["i4"], unordered])
    assert len(markov.recommend(pd.Series(["i4", "i5"]), k=2)) == 2
    with pytest.raises(TypeError, match="not a mixture"):
        markov.recommend([["i4"], "i5"])
    for k in (0, 2.5, "3", True, None):
        with pytest.raises(ValueError, match="k: expected a whole number, 1 or more"):
            markov.recommend(["i4"], k=k)
    assert len(markov.recommend(["i4"], k=np.int64(3))) == 3
    log = pd.DataFrame({"user": [1, 1, 2], "item": ["i4", "i5", "i6"]})
    with pytest.raises(TypeError, match=r"a history is a list of item ids, .* \(its entry 1 is a pandas.Series\)$"):
        markov.recommend(log.groupby("user")["item"])  # pairs of a user and the items
    assert markov.recommend(log.groupby("user")["item"].apply(list), k=1).history.tolist() == [0, 1]
    for seen in ("no", None, 1):
        with pytest.raises(TypeError, match=r"seen: expected True or False \(got "):
            markov.recommend(["i4"], seen=seen)
    assert len(markov.recommend(["i4"], k=2, seen=np.bool_(True))) == 2


def test_what_is_no_stock_and_no_attribute_is_refused(markov: Any) -> None:
    """Ids of one letter are ids: a text would choose among its letters."""
    for wrong in ("i4", b"i4", 5, pd.DataFrame({"item": ["i4"]})):
        with pytest.raises(TypeError, match=r"^items: expected a list of item ids, .* \(got [^\n]*\)$"):
            markov.recommend(["i4"], items=wrong)
    assert len(markov.recommend(["i4"], k=2, items={"i20", "i21"})) == 2
    with pytest.raises(TypeError, match=r"^attribute: expected names and values, e.g. {'brand': 'Acme'} \(got 'brand'"):
        markov.recommend(["i4"], attribute="brand")


def test_a_device_that_is_none_is_told(results: Path) -> None:
    with pytest.raises(ValueError, match=r"^device: expected auto, cpu or cuda \(got 'tpu'\)$"):
        tessera.load(folder_of(results, "ids"), device="tpu")


def test_equals_stand_by_id() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 4, (50, 40)).astype(np.float32))
    scores[0] = 0.0
    scores[1, 5:] = -torch.inf
    ids, values = best(scores.clone(), 9)
    for row in range(50):
        expected = sorted(range(40), key=lambda item: (-float(scores[row, item]), item))[:9]
        expected = [item + 1 if scores[row, item] > -torch.inf else 0 for item in expected]
        assert ids[row].tolist() == expected
        assert values[row, 0] == scores[row].max()


def test_scores_that_float32_does_not_tell_apart_stand_as_they_are_judged() -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-12, -torch.inf, 1.0 - 1e-12]], dtype=torch.float64)
    assert best(scores, 4)[0].tolist() == [[2, 1, 4, 0]]


def test_what_is_no_run_is_told(results: Path, tmp_path: Path) -> None:
    for above in ("runs/ids", "runs/ids/sasrec", "runs", ""):
        with pytest.raises(ArtifactError, match=r"no finished run \(no model.json\); did you mean .*/seed-1"):
            tessera.load(results / above)
    with pytest.raises(FileNotFoundError, match="seed-1"):
        tessera.load(results / "runs/ids/sasrec/seed-2")
    write_model(tmp_path / "other/model.safetensors", {}, {"settings": {}})
    with pytest.raises(ArtifactError, match="is no run of a recommender"):
        tessera.load(tmp_path / "other")
    away = tmp_path / "results/x"
    shutil.copytree(results, away)
    numbers = np.arange(1, ITEMS + 1)
    write_item_table(away / "tables/t.parquet", numbers, np.ones((ITEMS, 6), np.float32))
    for name in ("table", "codes", "dual_view"):
        with pytest.raises(ArtifactError, match=r"t.parquet: is not the table t that .* was trained on"):
            tessera.load(folder_of(away, name))
    write_model(away / "embedders/a/model.safetensors", {}, {"settings": {}})
    with pytest.raises(ArtifactError, match=r"did you mean \S*/runs/"):  # and none of what lies beside the runs
        tessera.load(away)
    (away / "tables/t.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"reads files that are not there: .*tables/t.parquet"):
        tessera.load(folder_of(away, "table"))


def test_a_link_to_a_run_is_the_run(results: Path, tmp_path: Path) -> None:
    """`current` beside a service, say: the dataset lies where the run does, not where the link does."""
    folder = folder_of(results, "table")
    links = {"run": folder, "runs": results / "runs", "results": results.parent}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    for path in (
        tmp_path / "run",
        tmp_path / "runs/table/sasrec/seed-1",
        tmp_path / "results/x/runs/table/sasrec/seed-1",
    ):
        assert tessera.load(path).recommend(["i4"], k=3).equals(tessera.load(folder).recommend(["i4"], k=3))
    # a folder of runs on another disk, whose dataset is beside the link
    shutil.copytree(results, tmp_path / "away/x")
    (tmp_path / "away/x/runs").rename(tmp_path / "disk")
    (tmp_path / "away/x/runs").symlink_to(tmp_path / "disk")
    tessera.load(tmp_path / "away/x/runs/table/sasrec/seed-1")
    with pytest.raises(
        ArtifactError, match=r"model.json: is a file, and a run is a folder; did you mean \S+/seed-1\?$"
    ):
        tessera.load(folder / "model.json")


@pytest.mark.parametrize("name", ["items.parquet", "popularity.safetensors"])
def test_a_part_of_a_saved_run_that_is_lost_is_named_where_it_should_be(
    name: str, results: Path, tmp_path: Path
) -> None:
    saved = tessera.load(folder_of(results, "table")).save(tmp_path / "saved")
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match=f"reads files that are not there: {saved / name}; load it where"):
        tessera.load(saved)


def test_a_dataset_that_was_made_anew_is_refused(results: Path, tmp_path: Path) -> None:
    """With as many items, which have other numbers now: scores would be those of other items."""
    away = tmp_path / "results/x"
    shutil.copytree(results, away)
    path = away / "data/items.parquet"
    table = pq.read_table(path)
    renamed = ["a0", *table.column("raw_id").to_pylist()[:-1]]
    pq.write_table(table.set_column(table.column_names.index("raw_id"), "raw_id", pa.array(renamed)), path)
    for name in ("ids", "markov"):
        description = json.loads((folder_of(away, name) / "model.json").read_text())
        assert description["trained_on"]["items"]
        with pytest.raises(ArtifactError, match=r"items.parquet: are not the items that .* was trained on"):
            tessera.load(folder_of(away, name))


def test_weights_of_another_system_are_told(results: Path, tmp_path: Path) -> None:
    away = tmp_path / "results/x"
    shutil.copytree(results, away)
    shutil.copy(folder_of(away, "codes") / "model.safetensors", folder_of(away, "ids") / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"model.safetensors: does not hold what \S+/sasrec/seed-1 has learned: "):
        tessera.load(folder_of(away, "ids"))
    shutil.copy(folder_of(away, "ids") / "model.safetensors", folder_of(away, "markov") / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"does not hold what .* has learned: "):
        tessera.load(folder_of(away, "markov"))
    (folder_of(away, "ids") / "model.json").write_text("[]")
    with pytest.raises(ArtifactError, match="is no run of a recommender"):
        tessera.load(folder_of(away, "ids"))


ROOT = Path(__file__).resolve().parents[3]


def shop(results: Path, folder: Path, raw_ids: list[str]) -> None:
    """A dataset with ids of its own, brands, and the run that the pages open."""
    for part in ("data", "tables"):
        shutil.copytree(results / part, folder / part)
    shutil.copytree(folder_of(results, "table"), folder / "runs/reaemb/sasrec/seed-1")
    items = read_table(folder / "data/items.parquet", "items")
    brands = pa.array([[("brand", "AcmeBolt"[number % 2 * 4 :][:4])] for number in range(ITEMS)], items.schema[3].type)
    items = items.set_column(1, "raw_id", pa.array(raw_ids)).set_column(3, "attributes", brands)
    write_table(folder / "data/items.parquet", items, "items")
    # the table of a file of vectors, which knows items that came later
    rows, _ = read_item_table(results / "tables/t.parquet", ITEMS)
    vectors = pd.DataFrame({"raw_id": ["SKU901", "SKU902"], "embedding": list(rows[1:3])})
    vectors.to_parquet(folder / "vectors.parquet")
    settings = {"recipe": "vectors", "path": str(folder / "vectors.parquet")}
    write_item_table(folder / "tables/t.parquet", np.arange(1, ITEMS + 1), rows[1:], settings)
    description = folder / "runs/reaemb/sasrec/seed-1/model.json"
    trained_on = {"items": ids_digest(["", *raw_ids])}
    write_json(description, read_json(description) | {"inputs": {}, "trained_on": trained_on})


@pytest.mark.parametrize(
    ("page", "name", "ids"),
    [("docs/use.md", "my/shop", "SKU{}"), ("README.md", "demo/bazaar", "b{:06}")],
    ids=["use", "readme"],
)
def test_what_the_pages_show_runs(
    page: str, name: str, ids: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = 10 if page == "README.md" else 1
    shop(results, tmp_path / "results" / name, [ids.format(number + shift) for number in range(ITEMS)])
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the items that the page names are known
        for block in blocks:
            if "tessera.load" in block or names:
                exec(block, names)
    if page == "README.md":
        return
    assert names["many"].history.tolist() == [0] * 5 + [1] * 5
    assert names["many"].item.tolist()[:5] == names["one"].item.tolist()
    assert len(names["again"]) == 10
    assert set(names["stock"].item) == {"SKU2", "SKU3", "SKU4"}
    acme = {f"SKU{number + 1}" for number in range(0, ITEMS, 2)}
    assert set(names["brand"].item) <= acme - {"SKU1"}
    assert names["states"].shape == (2, 16)
    assert len(names["wider"].catalogue) == ITEMS + 2
    assert names["kept"].recommend(["SKU1", "SKU7"], k=5).equals(names["one"])
    assert (tmp_path / "handed-on/README.md").is_file()


def test_the_config_of_the_page_is_valid() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/use.md").read_text(encoding="utf-8"), re.DOTALL)
    whole = [load_config(part) for part in map(yaml.safe_load, shown) if "datasets" in part]
    assert len(whole) == 2
    config = whole[0]
    assert Jobs(Plan(config)).serving.recommended() == ["shop-final/recommendations/id/sasrec/seed-1"]
    assert Jobs(Plan(config)).serving.exported() == ["shop-final/export/id/sasrec"]


def test_loading_leaves_the_random_numbers_of_the_caller(results: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tessera.load(folder_of(results, "ids"))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("strict", [False, True])
def test_loading_leaves_the_modes_of_the_caller(strict: bool, results: Path) -> None:
    """A program of one's own goes on as it was: under torch's strict mode some of its operations would end."""
    torch.use_deterministic_algorithms(strict)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    try:
        tessera.load(folder_of(results, "ids"), device="cpu")
        assert torch.are_deterministic_algorithms_enabled() == strict
        assert torch.utils.deterministic.fill_uninitialized_memory == filled
    finally:
        torch.use_deterministic_algorithms(False)


def test_importing_tessera_loads_no_engine() -> None:
    code = (
        "import sys, tessera; tessera.load; print(sorted({'torch', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
