"""The oracle through the judge: exact probabilities, whatever cleaning did, and better than everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tessera.artifacts.files import read_json
from tessera.artifacts.tables import ArtifactError, read_table, write_table
from tessera.data.bazaar.generate import generate
from tessera.data.bazaar.histories import Sampler, draw_histories, next_item_probabilities
from tessera.data.bazaar.oracle import Oracle
from tessera.data.bazaar.world import build_world
from tessera.data.dataset import load_dataset, read_raw_ids
from tessera.evaluation.groups import item_groups
from tessera.evaluation.oracle import judge_oracle
from tessera.settings.evaluation import Evaluation, SampledRanking
from tessera.settings.sources.bazaar import BazaarSource

SETTINGS = BazaarSource(users=400, items=120, tastes=30, mean_history=15.0, oracle_users=300)


def prepare(raw: Path, data: Path, dropped: set[str]) -> None:
    """A leave-one-out dataset from which some items are gone; written by hand to stay independent of cleaning."""
    log = read_table(raw / "interactions.parquet", "raw_interactions")
    log = log.sort_by([("user", "ascending"), ("timestamp", "ascending"), ("row", "ascending")])
    histories: dict[str, list[str]] = {}
    for user, item in zip(log.column("user").to_pylist(), log.column("item").to_pylist(), strict=True):
        history = histories.setdefault(user, [])
        if item not in dropped and item not in history:
            history.append(item)
    raw_items = sorted({item for history in histories.values() for item in history})
    dense = {raw_id: index for index, raw_id in enumerate(raw_items, 1)}
    rows = []
    for user, history in enumerate(histories.values(), 1):
        last = len(history) - 1
        for place, item in enumerate(history):
            split = "test" if place == last else "valid" if place == last - 1 else "train"
            rows.append((user, dense[item], None, place, None, split))
    names = ["user", "item", "timestamp", "position", "rating", "split"]
    columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    write_table(data / "interactions.parquet", pa.table(columns), "interactions")
    count = len(raw_items)
    items = pa.table(
        {
            "item": list(range(1, count + 1)),
            "raw_id": raw_items,
            "title": pa.nulls(count, pa.string()),
            "attributes": pa.nulls(count, pa.map_(pa.string(), pa.string())),
            "image": pa.nulls(count, pa.string()),
        }
    )
    write_table(data / "items.parquet", items, "items")
    write_table(
        data / "users.parquet", pa.table({"user": range(1, len(histories) + 1), "raw_id": list(histories)}), "users"
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    generate(SETTINGS, folder / "raw")
    prepare(folder / "raw", folder / "data", {"b000003", "b000050"})
    return folder


@pytest.fixture(scope="module")
def oracle(base: Path) -> Oracle:
    data = base / "data"
    return Oracle(base / "raw/truth.parquet", read_raw_ids(data, "users"), read_raw_ids(data, "items"))


def judge(base: Path, settings: Evaluation, candidates: Path | None = None) -> tuple[dict[str, object], pa.Table]:
    out = base / "out"
    truth = base / "raw/truth.parquet"
    found = judge_oracle(settings, base / "data", truth, candidates, out / "evaluation.parquet", out / "metrics.json")
    assert read_json(out / "metrics.json")["metrics"] == found["metrics"]
    return found, read_table(out / "evaluation.parquet", "evaluation")


def test_probabilities_are_those_of_the_generator(base: Path, oracle: Oracle) -> None:
    """Against the states kept in memory by a second run of the process."""
    world = build_world(SETTINGS)
    told = draw_histories(Sampler(world), 0, record=True)
    assert told.tastes is not None
    assert told.weights is not None
    raw_users = read_raw_ids(base / "data", "users")
    cases = load_dataset(base / "data").cases("test")
    place = {int(user): index for index, user in enumerate(told.user)}
    for case in np.flatnonzero(oracle.knows(cases.users))[::29]:
        user, target = int(cases.users[case]), int(cases.targets[case])
        row = place[int(raw_users[user][1:])]
        history = told.items[row, : told.length[row]]
        step = int(np.flatnonzero(history == oracle.item_numbers[target - 1])[0])
        previous = int(history[step - 1]) if step else None
        every = next_item_probabilities(
            world, told.tastes[row, step], told.weights[row, step], previous, history[:step]
        )
        expected = every[oracle.item_numbers] / every[oracle.item_numbers].sum()
        assert np.allclose(oracle.probabilities(user, target), expected, rtol=1e-12)
        assert expected[target - 1] > 0


def test_the_oracle_is_calibrated(base: Path, oracle: Oracle) -> None:
    """The mean log-probability of what came equals the mean negative entropy: the probabilities are true."""
    cases = load_dataset(base / "data").cases("test")
    surprise = []
    for case in np.flatnonzero(oracle.knows(cases.users)):
        odds = oracle.probabilities(int(cases.users[case]), int(cases.targets[case]))
        assert odds.sum() == pytest.approx(1)
        some = odds[odds > 0]
        surprise.append(np.log(odds[cases.targets[case] - 1]) - (some * np.log(some)).sum())
    assert abs(np.mean(surprise)) < 4 * np.std(surprise) / len(surprise) ** 0.5


def test_only_known_users_are_judged_and_popularity_is_beaten(base: Path) -> None:
    found, table = judge(base, Evaluation())
    dataset = load_dataset(base / "data")
    assert found["users"] == table.num_rows == 300
    assert found["protocol"] == "full"
    assert found["system"] == "oracle"
    counts = dataset.train_counts[1:]
    popular = 1 + (counts > dataset.train_counts[table.column("item").to_numpy()][:, None]).sum(1)
    assert (table.column("rank").to_numpy() <= 10).mean() > 1.5 * (popular <= 10).mean()
    assert set(found["groups"]["popularity"]) == set(item_groups(dataset.train_counts, Evaluation())["popularity"])


def test_recommendations_are_new_to_the_user(base: Path) -> None:
    _, table = judge(base, Evaluation())
    cases = load_dataset(base / "data").cases("test")
    lists = dict(zip(table.column("user").to_pylist(), table.column("recommended").to_pylist(), strict=True))
    for case, user in enumerate(cases.users):
        if int(user) in lists:
            assert not set(lists[int(user)]) & set(cases.history(case).tolist())


def test_sampled_candidates(base: Path) -> None:
    from tessera.evaluation.candidates import sample_candidates

    dataset = load_dataset(base / "data")
    protocol = SampledRanking(negatives=20)
    chosen = sample_candidates(dataset.cases("test"), protocol, dataset.train_counts)
    write_table(base / "candidates.parquet", chosen, "candidates")
    found, table = judge(base, Evaluation(candidates=protocol), base / "candidates.parquet")
    assert found["protocol"] == "20 sampled"
    assert table.column("rank").to_numpy().max() <= 21


def test_what_the_oracle_does_not_know(base: Path, oracle: Oracle, tmp_path: Path) -> None:
    raw_users, raw_items = read_raw_ids(base / "data", "users"), read_raw_ids(base / "data", "items")
    stranger = next(user for user, raw in enumerate(raw_users) if raw and int(raw[1:]) >= 300)
    with pytest.raises(ArtifactError, match="raise `oracle_users`"):
        oracle.probabilities(stranger, 1)
    with pytest.raises(ArtifactError, match="item 'c1' is not of this world"):
        Oracle(base / "raw/truth.parquet", raw_users, [*raw_items, "c1"])
    with pytest.raises(ArtifactError, match="is of kind 'raw_items', expected 'truth'"):
        Oracle(base / "raw/items.parquet", raw_users, raw_items)
    generate(SETTINGS.model_copy(update={"oracle_users": 0}), tmp_path)
    with pytest.raises(ValueError, match="holds the truth of none of the 400 test users"):
        judge_oracle(
            Evaluation(), base / "data", tmp_path / "truth.parquet", None, tmp_path / "e.parquet", tmp_path / "m.json"
        )
