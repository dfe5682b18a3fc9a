"""Judging a drawn part of the test users, through real runs and files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pattern import make_run, reads
from pydantic import ValidationError
from test_repeated_targets import write_dataset

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.data.dataset import Cases, load_dataset
from tessera.evaluation.candidates import sample_candidates
from tessera.evaluation.drawn_users import draw_test_users, of_drawn_users
from tessera.evaluation.judge import summarize
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.train import train_run
from tessera.reporting.ranking import collect
from tessera.settings.evaluation import Evaluation, Significance

USERS, DRAWN = 60, 17
SETTINGS = Evaluation(test_users=DRAWN, cutoffs=[1, 5])
EVERYBODY = Evaluation(cutoffs=[1, 5])
SYSTEMS = ("popular", "item_knn", "markov")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users who walk a ring of 23 items; some have no test target, and some come back to an item."""
    draw = np.random.default_rng(0)
    histories = {}
    for user in range(USERS):
        start, length = draw.integers(23), draw.integers(3, 9)
        walk = [f"i{(start + step) % 23}" for step in range(length)]
        histories[f"u{user}"] = [*walk[:-1], walk[0]] if user % 7 == 0 else walk
    return write_dataset(tmp_path_factory.mktemp("ring"), histories)


@pytest.fixture(scope="module")
def drawn(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "test_users.parquet"
    write_table(path, draw_test_users(load_dataset(data).cases("test"), SETTINGS), "test_users")
    return path


@pytest.fixture(scope="module")
def runs(data: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders of judgements, of everybody and of the drawn users."""
    made = {}
    for system in SYSTEMS:
        folder = tmp_path_factory.mktemp(system)
        run = make_run(system={"recommender": system}).model_copy(update={"system": system, "recommender": system})
        train_run(run, data, reads(), folder / "model.safetensors", folder / "state")
        for name, settings, users in (("all", EVERYBODY, None), ("drawn", SETTINGS, drawn)):
            out = folder / name / system
            evaluate_run(
                run, settings, folder / "model.safetensors", data, reads(), None, out / "evaluation.parquet",
                out / "metrics.json", users,
            )  # fmt: skip
            made[system, name] = out
    return made


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_part_is_judged_as_in_the_whole(
    system: str, data: Path, drawn: Path, runs: dict[tuple[str, str], Path]
) -> None:
    whole = read_table(runs[system, "all"] / "evaluation.parquet", "evaluation")
    part = read_table(runs[system, "drawn"] / "evaluation.parquet", "evaluation")
    users = read_table(drawn, "test_users").column("user").to_pylist()
    assert len(set(users)) == DRAWN
    expected = whole.filter(pa.array([user in users for user in whole.column("user").to_pylist()]))
    assert part.replace_schema_metadata(None).equals(expected.replace_schema_metadata(None))
    metrics = read_json(runs[system, "drawn"] / "metrics.json")
    averages = summarize(expected, SETTINGS, load_dataset(data).train_counts, "full")
    assert {key: metrics[key] for key in averages} == averages
    assert (metrics["test_users"], metrics["drawn_from"]) == (DRAWN, whole.num_rows)
    assert read_json(runs[system, "all"] / "metrics.json")["drawn_from"] is None


def test_every_table_says_how_many_of_how_many(runs: dict[tuple[str, str], Path]) -> None:
    order = [f"{system}/{system}" for system in SYSTEMS]
    tests = Significance(method="t_test", baseline="popular")
    tables = {
        name: collect("ring", [str(runs[system, name] / "metrics.json") for system in SYSTEMS], order, settings, tests)
        for name, settings in (("all", EVERYBODY), ("drawn", SETTINGS))
    }
    whole = tables["all"].judged.test_users
    assert f"{DRAWN} test users, drawn at random from {whole} (seed 0), the same for every system" in (
        tables["drawn"].conditions()
    )
    assert f"{whole} test users" in tables["all"].conditions()


def test_the_drawing_knows_users_and_seed_alone(data: Path) -> None:
    cases = load_dataset(data).cases("test")
    users = draw_test_users(cases, SETTINGS)
    assert users.column("user").to_pylist() == sorted(users.column("user").to_pylist())
    other = Cases(cases.users, cases.targets[::-1].copy(), cases.offsets, cases.items[::-1].copy())
    policies = SETTINGS.model_copy(update={"mask_seen": False, "repeat_targets": "drop", "cold_targets": "drop"})
    assert draw_test_users(other, policies).equals(users)
    assert not draw_test_users(cases, SETTINGS.model_copy(update={"test_users_seed": 1})).equals(users)
    # every user has the same chance
    counts = np.zeros(len(cases))
    for seed in range(600):
        chosen = draw_test_users(cases, SETTINGS.model_copy(update={"test_users_seed": seed}))
        counts[np.isin(cases.users, chosen.column("user").to_numpy())] += 1
    chance = DRAWN / len(cases)
    assert np.abs(counts / 600 - chance).max() < 4.5 * (chance * (1 - chance) / 600) ** 0.5


def test_more_than_there_are_takes_all_with_a_word(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = load_dataset(data).cases("test")
    with caplog.at_level(logging.INFO, logger="tessera"):
        users = draw_test_users(cases, Evaluation(test_users=1_000))
    assert users.column("user").to_pylist() == cases.users.tolist()
    assert f"evaluation.test_users: 1,000, and there are {len(cases)} test users: all are judged" in caplog.text


def test_negatives_are_those_of_the_whole(data: Path, drawn: Path) -> None:
    dataset = load_dataset(data)
    settings = Evaluation.model_validate({"candidates": {"kind": "sampled", "negatives": 5}}).candidates
    cases = dataset.cases("test")
    whole, part = (
        dict(zip(*sample_candidates(given, settings, dataset.train_counts).to_pydict().values(), strict=True))
        for given in (cases, of_drawn_users(drawn, cases))
    )
    assert len(part) == DRAWN
    assert part == {user: whole[user] for user in part}


def test_a_file_of_other_users_is_refused(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "test_users.parquet"
    write_table(path, pa.table({"user": pa.array([1, 2, 900, 901], pa.int32())}), "test_users")
    with pytest.raises(ArtifactError, match=r"2 of its 4 users have no test case, the first is user 900"):
        of_drawn_users(path, load_dataset(data).cases("test"))


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", [3]])
def test_bad_values_are_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="test_users"):
        Evaluation.model_validate({"test_users": value})


def test_nothing_is_drawn_of_everybody(data: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_test_users(load_dataset(data).cases("test"), EVERYBODY)


@pytest.mark.parametrize("times", [False, True])
def test_taken_cases_are_those_of_a_loop(data: Path, times: bool) -> None:
    cases = load_dataset(data).cases("test")
    if times:
        cases = Cases(cases.users, cases.targets, cases.offsets, cases.items, np.arange(len(cases.items)) * 0.5)
    chosen = np.random.default_rng(1).permutation(len(cases))[:20]
    taken = cases.take(chosen)
    for place, case in enumerate(chosen.tolist()):
        assert (taken.users[place], taken.targets[place]) == (cases.users[case], cases.targets[case])
        np.testing.assert_array_equal(taken.history(place), cases.history(case))
        if times:
            own = slice(cases.offsets[case], cases.offsets[case + 1])
            np.testing.assert_array_equal(
                taken.times[taken.offsets[place] : taken.offsets[place + 1]], cases.times[own]
            )
    assert len(cases.take(np.zeros(0, int)).items) == 0
