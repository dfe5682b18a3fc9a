"""Trials of a search see training and validation rows alone; the best is chosen by validation; failures are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pattern import make_run, write_dataset

from tessera.artifacts.files import read_json, write_json
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import validation_metrics
from tessera.evaluation.ranking import ScoreError
from tessera.recommenders import trial as trial_module
from tessera.recommenders.evaluate import evaluate_run, load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run, validation_settings
from tessera.recommenders.trial import try_run
from tessera.settings.base import ConfigError
from tessera.settings.changes import with_values
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.training.search import choose

VALUES = {"training.learning_rate": 0.003, "backbones.sasrec.dim": 24}


def test_no_trial_reads_a_test_target(tmp_path: Path) -> None:
    run = with_values(make_run(), VALUES)
    outcomes = []
    for name, swapped in (("a", False), ("b", True)):
        data = write_dataset(tmp_path / name / "data", swap_targets=swapped)
        try_run(run, data, RunInputs(), tmp_path / name / "trial.json", tmp_path / name / "state")
        outcome = read_json(tmp_path / name / "trial.json")
        curve = [json.loads(row) for row in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        numbers = [{key: value for key, value in row.items() if "second" not in key} for row in curve]
        outcomes.append(({**outcome, "seconds": 0}, numbers))
        assert not list((tmp_path / name).rglob("*.safetensors"))
    targets = [load_dataset(tmp_path / name / "data").cases("test").targets for name in ("a", "b")]
    assert (targets[0] != targets[1]).all()
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]["values"] == VALUES
    assert 0 < outcomes[0][0]["validation"] == max(row["NDCG@10"] for row in outcomes[0][1] if "NDCG@10" in row)


def test_what_was_chosen_is_trained_and_read_again(data: Path, tmp_path: Path) -> None:
    run = make_run()
    chosen = with_values(run, VALUES)
    model = tmp_path / "model.safetensors"
    train_run(chosen, data, RunInputs(), model, tmp_path / "state")
    try_run(chosen, data, RunInputs(), tmp_path / "trial" / "trial.json", tmp_path / "state")
    assert read_json(model.with_suffix(".json"))["validation"] == read_json(tmp_path / "trial/trial.json")["validation"]
    # the job that judges has the settings of the config alone
    scorer = load_scorer(model, run, load_dataset(data).train_counts, RunInputs())
    assert scorer.item_vectors.shape[1] == 24
    evaluate_run(run, Evaluation(), model, data, RunInputs(), None, tmp_path / "e.parquet", tmp_path / "m.json")


def test_a_trial_whose_loss_is_no_number_failed(data: Path, tmp_path: Path) -> None:
    run = with_values(make_run(gradient_clip=None), {"training.learning_rate": 1.0e9})
    try_run(run, data, RunInputs(), tmp_path / "trial.json", tmp_path / "state")
    outcome = read_json(tmp_path / "trial.json")
    if outcome["validation"] is None:
        assert outcome["failed"]
    else:
        pytest.skip("this processor trains on at this rate")


def test_a_trial_whose_weights_break_in_the_last_step_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation meets what is no number; what the trial had saved before is removed."""
    calls: list[int] = []

    def validation(*_: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise ScoreError("the score of item 1 for user 12 is NaN")
        return {"NDCG@10": 0.1 * len(calls), "Hit@10": 0.2}

    monkeypatch.setattr("tessera.recommenders.train.validation_metrics", validation)
    run = make_run(checkpoint_seconds=0.0)
    try_run(run, data, RunInputs(), tmp_path / "trial/trial.json", tmp_path / "state")
    outcome = read_json(tmp_path / "trial/trial.json")
    assert outcome["validation"] is None
    assert "for user 12 is NaN: the weights are no numbers after the last step; lower" in outcome["failed"]
    assert len(calls) == 3
    assert not list((tmp_path / "state").rglob("*.safetensors"))


HEURISTICS = {
    "item_knn": {"systems.s.neighbours": 7, "systems.s.decay": 0.6},
    "markov": {"systems.s.smoothing": 3.0},
}


@pytest.mark.parametrize("kind", HEURISTICS)
def test_a_heuristic_is_tried_without_a_test_target(kind: str, tmp_path: Path) -> None:
    run = with_values(make_run(system={"recommender": kind}), HEURISTICS[kind])
    outcomes = []
    for swapped in (False, True):
        folder = tmp_path / str(swapped)
        data = write_dataset(folder / "data", swap_targets=swapped)
        try_run(run, data, RunInputs(), folder / "trial.json", folder / "state")
        outcomes.append(read_json(folder / "trial.json") | {"seconds": 0})
        assert not list(folder.rglob("*.safetensors"))
        assert (folder / "history.jsonl").read_text() == ""
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["values"] == HEURISTICS[kind]
    # what is counted by hand: the ranks of the validation targets after the rows before them
    dataset = load_dataset(data)
    model = tmp_path / "model.safetensors"
    train_run(run, data, RunInputs(), model, tmp_path / "state")
    scorer = load_scorer(model, run, dataset.train_counts, RunInputs())
    cases = dataset.cases("valid")
    gains = []
    for case, target in enumerate(cases.targets):
        history = cases.items[cases.offsets[case] : cases.offsets[case + 1]]
        scores = scorer(Histories.of(history[None]))[0].clone()
        own = scores[target - 1].item()
        scores[[item - 1 for item in history if item != target]] = -torch.inf
        repeated = target in history
        ahead = (scores > own).sum().item() + ((scores == own).sum().item() - 1) / 2
        gains.append(0.0 if repeated or ahead > 9 else 1 / np.log2(ahead + 2))
    assert outcomes[0]["validation"] == pytest.approx(np.mean(gains), abs=1e-6)


def test_what_is_chosen_after_training_counts_in_a_search(data: Path, tmp_path: Path) -> None:
    run = with_values(make_run(system={"recommender": "markov_mixture", "grid": [0.0, 0.9]}), VALUES)
    try_run(run, data, RunInputs(), tmp_path / "trial" / "trial.json", tmp_path / "state")
    model = tmp_path / "model.safetensors"
    train_run(run, data, RunInputs(), model, tmp_path / "state")
    dataset = load_dataset(data)
    scorer = load_scorer(model, run, dataset.train_counts, RunInputs())
    expected = validation_metrics(
        scorer, dataset.cases("valid"), validation_settings(run, len(dataset.train_counts) - 1)
    )["NDCG@10"]
    of_base = read_json(model.with_suffix(".json"))
    assert of_base["selected"] == {"weight": 0.9}
    assert read_json(tmp_path / "trial" / "trial.json")["validation"] == pytest.approx(expected, abs=1e-12)
    assert expected > of_base["validation"]


def test_a_training_that_ended_before_the_kill_is_not_done_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_values(make_run(), VALUES)
    whole = tmp_path / "whole/trial-0/trial.json"
    try_run(run, data, RunInputs(), whole, tmp_path / "state-whole")
    assert not list((tmp_path / "state-whole").rglob("*"))
    output = tmp_path / "killed/trial-0/trial.json"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trial_module, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            try_run(run, data, RunInputs(), output, tmp_path / "state")
    output.with_name("history.jsonl").unlink()  # as Snakemake does of a job that did not end
    with monkeypatch.context() as patched:
        patched.setattr(trial_module, "launch", killed)
        try_run(run, data, RunInputs(), output, tmp_path / "state")
        # nothing is left of it
        with pytest.raises(KeyboardInterrupt):
            try_run(run, data, RunInputs(), output, tmp_path / "state")
    assert read_json(output) | {"seconds": 0} == read_json(whole) | {"seconds": 0}
    curves = [path.with_name("history.jsonl").read_text().splitlines() for path in (output, whole)]
    assert [json.loads(row)["loss"] for row in curves[0]] == [json.loads(row)["loss"] for row in curves[1]]
    trained = sum(json.loads(row)["seconds"] for row in curves[0])
    assert read_json(output)["seconds"] >= round(trained, 1)  # though the job that ended only read what was there
    assert not list((tmp_path / "state").rglob("*"))


def test_seconds_are_of_all_attempts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of epochs before a kill the curve knows what they took; the clock of the job that goes on does not."""
    rows = [
        {"phase": "a", "step": 5, "seconds": 20.0},
        {"phase": "a", "step": 10, "seconds": 40.0},
        {"phase": "b", "epoch": 0, "validation_seconds": 1.0},
        {"phase": "b", "epoch": 1, "seconds": 100.0, "validation_seconds": 3.0},
        {"phase": "b", "epoch": 2, "seconds": 200.0},
    ]

    def ended(run: object, data: Path, inputs: object, weights: Path, *more: object) -> None:
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"")
        write_json(weights.with_suffix(".json"), {"validation": 0.1, "best_epoch": 2, "epochs": 2})
        weights.with_name("history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr(trial_module, "launch", ended)
    output = tmp_path / "trial/trial.json"
    try_run(with_values(make_run(), VALUES), data, RunInputs(), output, tmp_path / "state")
    assert read_json(output)["seconds"] == 40 + 1 + 100 + 3 + 200


def trial(folder: Path, number: int, validation: float | None) -> Path:
    path = folder / f"trial-{number}" / "trial.json"
    failed = None if validation is not None else "the loss is not a number"
    write_json(
        path, {"values": {"training.epochs": number}, "validation": validation, "failed": failed, "seconds": 1.0}
    )
    return path


def test_the_best_trial_is_chosen_and_more_of_them_change_nothing_else(tmp_path: Path) -> None:
    trials = [trial(tmp_path, n, value) for n, value in enumerate([None, 0.2, 0.5, 0.5, 0.1])]
    best, search = tmp_path / "best.json", tmp_path / "search.json"
    choose(trials, best, search)
    assert read_json(best) == {"values": {"training.epochs": 2}}
    assert read_json(search)["curve"] == [None, 0.2, 0.5, 0.5, 0.5]
    assert read_json(search)["best"] == 2
    before = best.read_bytes()
    choose([*trials, trial(tmp_path, 5, 0.4)], best, search)
    assert best.read_bytes() == before
    with pytest.raises(ValueError, match=r"all 1 trials failed; the first: the loss is not a number"):
        choose(trials[:1], best, search)


def test_a_trial_of_a_mixture_is_judged_with_its_weight(tmp_path: Path) -> None:
    """A weight that is given is set after the last epoch, whose validation is of the base alone."""
    data = write_dataset(tmp_path / "data")
    base = make_run(system={"recommender": "markov_mixture", "weight": 0.1}, epochs=2)
    validations = []
    for weight in (0.0, 0.9):
        run, folder = with_values(base, {"systems.s.weight": weight}), tmp_path / str(weight)
        try_run(run, data, RunInputs(), folder / "trial.json", tmp_path / "state")
        train_run(run, data, RunInputs(), folder / "model.safetensors", tmp_path / "trained")
        dataset = load_dataset(data)
        scorer = load_scorer(folder / "model.safetensors", run, dataset.train_counts, RunInputs())
        judged = validation_metrics(
            scorer, dataset.cases("valid"), validation_settings(run, len(dataset.train_counts) - 1)
        )["NDCG@10"]
        validations.append(read_json(folder / "trial.json")["validation"])
        assert validations[-1] == pytest.approx(judged, rel=1e-12)
    assert validations[0] != validations[1]


def test_a_trial_of_no_epoch_says_what_the_start_is_worth(tmp_path: Path) -> None:
    run, data = make_run(epochs=0), write_dataset(tmp_path / "data")
    try_run(run, data, RunInputs(), tmp_path / "trial.json", tmp_path / "state")
    outcome = read_json(tmp_path / "trial.json")
    assert outcome["failed"] is None
    assert 0 <= outcome["validation"] <= 1
    assert outcome["epochs"] == 0


SEARCHED: dict[str, tuple[dict[str, Any], str]] = {
    "a dropout of items": ({"items": {"table": "t"}}, "items.dropout"),
    "smoothing of a Markov chain": ({"recommender": "markov"}, "smoothing"),
    "weight of a mixture": ({"recommender": "markov_mixture"}, "weight"),
    "a base": ({"recommender": "markov_mixture", "base": {"items": {"table": "t"}}}, "base.items.dropout"),
    "what is read with cosines": ({"items": "ids", "scores": "cosine"}, "temperature"),
}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_of_one_key_says_nothing_of_the_others(name: str) -> None:
    """Defaults that nobody wrote are not refused as keys that nothing reads."""
    system, key = SEARCHED[name]
    config = {
        "datasets": {"shop": {"source": "bazaar"}}, "systems": {"s": system},
        "tables": {"t": {"recipe": "vectors", "path": "t.npy", "made_from": ["text"]}},
        "experiment": {"datasets": ["shop"], "systems": ["s"], "backbones": ["sasrec"], "seeds": [1]},
        "search": {"trials": 2, "space": {f"systems.s.{key}": {"low": 0.1, "high": 0.5}}},
    }  # fmt: skip
    assert load(config).search is not None
    if name.startswith("smoothing"):
        with pytest.raises(ConfigError, match="strength: is read with `similar` alone"):
            load({**config, "systems": {"s": {**system, "strength": 2.0}}})
        space = {"systems.s.strength": {"low": 0.1, "high": 0.5}}
        with pytest.raises(ConfigError, match="strength: is read with `similar` alone"):
            load({**config, "search": {"trials": 2, "space": space}})
