"""Users who come back to items, through training and judging of real runs."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from asking import ask
from pattern import make_run, reads

from tessera.artifacts.tables import read_table, write_table
from tessera.data.dataset import load_dataset, read_raw_ids
from tessera.evaluation.candidates import parse_candidates, sample_candidates
from tessera.evaluation.judge import validation_metrics
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.train import train_run
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation, SampledRanking

RULES = [(True, "miss"), (True, "unmasked"), (False, "miss"), (True, "drop"), (False, "drop")]


def write_dataset(folder: Path, histories: dict[str, list[str]]) -> Path:
    """A prepared dataset of histories in time order: the last item tests, the one before validates."""
    raw = sorted({item for history in histories.values() for item in history})
    ids = {item: number for number, item in enumerate(raw, 1)}
    rows = [
        {
            "user": user,
            "item": ids[item],
            "position": place,
            "split": {1: "valid", 0: "test"}.get(len(history) - 1 - place, "train"),
        }
        for user, history in enumerate(histories.values(), 1)
        for place, item in enumerate(history)
    ]
    table = pa.Table.from_pylist(rows)
    for name, kind in (("timestamp", pa.int64()), ("rating", pa.float32())):
        table = table.append_column(name, pa.nulls(len(rows), kind))
    write_table(folder / "interactions.parquet", table, "interactions")
    items = {"item": list(ids.values()), "raw_id": raw, "title": raw}
    items |= {
        "attributes": pa.array([[]] * len(raw), pa.map_(pa.string(), pa.string())),
        "image": pa.nulls(len(raw), pa.string()),
    }
    write_table(folder / "items.parquet", pa.table(items), "items")
    users = {"user": list(range(1, len(histories) + 1)), "raw_id": list(histories)}
    write_table(folder / "users.parquet", pa.table(users), "users")
    return folder


@pytest.fixture(scope="module")
def favourites(data_root, tmp_path_factory):
    """faults/repeats.csv: 300 users who draw at random among six favourites each."""
    histories: dict[str, list[str]] = {}
    with data_root("faults", "repeats.csv").open() as file:
        for row in sorted(csv.DictReader(file), key=lambda row: (row["user"], int(row["timestamp"]))):
            histories.setdefault(row["user"], []).append(row["item"])
    return write_dataset(tmp_path_factory.mktemp("favourites"), histories)


def run_of(recommender, mask=True, policy="miss", **training):
    system = None if recommender == "sasrec" else {"recommender": recommender}
    run = make_run(system=system, **training)
    return run.model_copy(update={"mask_seen": mask, "repeat_targets": policy})


@pytest.fixture(scope="module")
def models(favourites, tmp_path_factory):
    """Every recommender, trained once."""
    found = {}
    for recommender in ("popular", "item_knn", "markov", "sasrec"):
        folder = tmp_path_factory.mktemp(recommender)
        # stopped by what it may name: with the history masked there would be nothing to stop by
        run = run_of(recommender, mask=False, epochs=6, patience=6, learning_rate=0.01)
        train_run(run, favourites, reads(), folder / "model.safetensors", folder / "state")
        found[recommender] = (run, folder / "model.safetensors")
    return found


def stored_candidates(kind, negatives, data, folder):
    """The candidates file of a protocol; of a published file the same negatives, in raw ids."""
    dataset = load_dataset(data)
    settings = SampledRanking(negatives=negatives, distribution="uniform" if kind == "file" else kind)
    table = sample_candidates(dataset.cases("test"), settings, dataset.train_counts)
    if kind == "file":
        users, items = read_raw_ids(data, "users"), read_raw_ids(data, "items")
        lines = [" ".join([users[row["user"]], *(items[i] for i in row["items"])]) for row in table.to_pylist()]
        (folder / "negatives.txt").write_text("\n".join(lines))
        table = parse_candidates(folder / "negatives.txt", users, items)
    write_table(folder / "candidates.parquet", table, "candidates")
    return folder / "candidates.parquet"


@pytest.mark.parametrize("recommender", ["popular", "item_knn", "markov", "sasrec"])
@pytest.mark.parametrize("kind", ["full", "uniform", "popularity", "file"])
@pytest.mark.parametrize(("mask", "policy"), RULES[:3])
def test_no_recommender_foresees_a_draw_among_six(recommender, kind, mask, policy, favourites, models, tmp_path):
    run, model = models[recommender]
    stored = None if kind == "full" else stored_candidates(kind, 100, favourites, tmp_path)
    candidates = {
        "full": {"kind": "full"},
        "file": {"kind": "file", "path": "negatives.txt"},
    }.get(kind, {"kind": "sampled", "negatives": 100, "distribution": kind})
    settings = Evaluation.model_validate(
        {"candidates": candidates, "mask_seen": mask, "repeat_targets": policy, "cutoffs": [1, 10]}
    )
    output = tmp_path / "evaluation.parquet"
    found = evaluate_run(run, settings, model, favourites, reads(), stored, output, tmp_path / "metrics.json")
    # 300 draws of a chance of a sixth: three standard errors
    assert found["metrics"]["Hit@1"] <= 1 / 6 + 3 * (5 / 36 / 300) ** 0.5
    assert found["repeat_share"] == 1.0
    assert found["protocol"] == {"full": "full", "file": "100 from file"}.get(kind, "100 sampled")
    if mask and policy == "miss":
        assert found["metrics"]["MRR"] == 0.0
    elif recommender in ("item_knn", "sasrec"):  # favourites are found, which of them comes next is not
        assert found["metrics"]["Hit@10"] > 0.5
    assert read_table(output, "evaluation").column("repeat").to_pylist() == [True] * 300


def mixed(folder: Path) -> Path:
    """40 users who take i0, i1, ...; every second comes back to a first item at the end, and before it."""
    histories = {}
    for user in range(40):
        taken = [f"i{(user + step) % 20:02d}" for step in range(8)]
        histories[f"u{user:02d}"] = [*taken[:6], *(taken[:2] if user % 2 else taken[6:])]
    return write_dataset(folder, histories)


@pytest.mark.parametrize(("mask", "policy"), RULES)
def test_training_is_stopped_by_the_rule_of_the_test(mask, policy, tmp_path):
    data = mixed(tmp_path / "data")
    run = run_of("sasrec", mask, policy, epochs=3, patience=3)
    train_run(run, data, reads(), tmp_path / "model.safetensors", tmp_path / "state")
    told = json.loads((tmp_path / "model.json").read_text())
    told = told.get("description", told)
    dataset = load_dataset(data)
    scorer = load_scorer(tmp_path / "model.safetensors", run, dataset.train_counts, reads())
    judged = Evaluation(mask_seen=mask, repeat_targets=policy)
    cases = dataset.cases("valid")
    assert cases.repeats.sum() == 20
    # by hand: every case, its history masked or not
    gains = []
    for case in range(len(cases)):
        history, target = cases.history(case), int(cases.targets[case])
        scores = ask(scorer, history[None, -run.backbone.max_length :])[0].clone()
        own, seen = scores[target - 1].item(), target in history
        if seen and policy == "drop":
            continue
        if mask and not (seen and policy == "unmasked"):
            scores[torch.tensor(history).long() - 1] = -torch.inf
            if seen:
                gains.append(0.0)
                continue
        rank = 1 + int((scores > own).sum()) + (int((scores == own).sum()) - 1) / 2
        gains.append(1 / torch.log2(torch.tensor(rank + 1.0)).item() if rank <= 10 else 0.0)
    expected = sum(gains) / len(gains)
    assert validation_metrics(scorer, cases, judged)["NDCG@10"] == pytest.approx(expected, abs=1e-6)
    assert told["validation"] == pytest.approx(expected, abs=1e-6)


def test_validation_that_nothing_can_hit_is_told(tmp_path, caplog):
    data = write_dataset(tmp_path / "data", {f"u{user}": list("abcdab") for user in range(20)})
    with caplog.at_level(logging.WARNING, logger="tessera"):
        run = run_of("sasrec", epochs=1)
        train_run(run, data, reads(), tmp_path / "model.safetensors", tmp_path / "state")
    assert "20 of 20 validation users" in caplog.text
    assert "set evaluation.mask_seen: false" in caplog.text
    run = run_of("sasrec", policy="drop", epochs=1)
    with pytest.raises(ValueError, match=r"repeat_targets: drop leaves all of them out.*mask_seen: false"):
        train_run(run, data, reads(), tmp_path / "model.safetensors", tmp_path / "state")


def test_a_run_knows_the_masks_of_the_evaluation():
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "evaluation": {"mask_seen": False, "repeat_targets": "drop"},
        "experiment": {"datasets": ["x"], "systems": ["id"]},
    }
    run = Plan(load(config)).runs[0]
    assert (run.mask_seen, run.repeat_targets) == (False, "drop")
