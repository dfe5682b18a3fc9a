"""What several vectors of a user stand for: nearest items, and which vector gave which recommendation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import CPU
from pattern import ITEMS, make_run, write_dataset
from test_contract import LENGTH, TwoInterestsRecommender

from tessera.data.dataset import Cases, load_dataset
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import rank_cases
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import as_scorer
from tessera.recommenders.train import train_run
from tessera.recommenders.user_vectors import ITEMS as TOLD
from tessera.recommenders.user_vectors import USERS, told_of_vectors
from tessera.settings.evaluation import Evaluation


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("vectors"), timed=True)


@pytest.fixture(scope="module")
def model() -> TwoInterestsRecommender:
    torch.manual_seed(3)
    made = TwoInterestsRecommender(ITEMS)
    with torch.no_grad():
        made.bias.copy_(torch.randn(ITEMS + 1) * 2)
    return made


def test_against_a_loop(data: Path, model: TwoInterestsRecommender) -> None:
    cases, scorer = load_dataset(data).cases("test", times=True), as_scorer(model, CPU)
    ranked = rank_cases(scorer, cases, Evaluation(), recommend=10)
    told = told_of_vectors(scorer, cases, ranked)
    assert len(told) == USERS
    lengths = [len(cases.history(case)) for case in range(len(cases))]
    by_length = sorted(range(len(cases)), key=lambda case: (lengths[case], cases.users[case]))
    assert [one["user"] for one in told] == [
        cases.users[by_length[int((number + 0.5) * len(cases) / USERS)]] for number in range(USERS)
    ]
    bias, scored = (part.detach().numpy() for part in (model.bias, model.scored.weight))
    for one in told:
        case = cases.users.tolist().index(one["user"])
        end = slice(cases.offsets[case + 1] - min(lengths[case], LENGTH), cases.offsets[case + 1])
        assert cases.times is not None
        history = Histories.of(cases.items[None, end], times=cases.times[None, end])
        vectors = model.users(history, model.catalogue())[0].detach().numpy()
        scores = [[float(vector @ scored[item]) + bias[item] for item in range(1, ITEMS + 1)] for vector in vectors]
        best = [max(range(2), key=lambda number: scores[number][item]) for item in range(ITEMS)]
        assert one["of_target"] == best[cases.targets[case] - 1]
        for number, vector in enumerate(one["vectors"]):
            order = sorted(range(1, ITEMS + 1), key=lambda item: -scores[number][item - 1])
            assert vector["items"] == order[:TOLD]
            listed = ranked.recommended[case].tolist()
            assert vector["recommended"] == sum(item > 0 and best[item - 1] == number for item in listed)
        assert sum(vector["recommended"] for vector in one["vectors"]) == 10


def test_users_are_the_same_under_every_system_and_few_are_all(data: Path, model: TwoInterestsRecommender) -> None:
    cases, scorer = load_dataset(data).cases("test", times=True), as_scorer(model, CPU)
    ranked = rank_cases(scorer, cases, Evaluation(), recommend=5)
    first = [one["user"] for one in told_of_vectors(scorer, cases, ranked)]
    other = as_scorer(TwoInterestsRecommender(ITEMS), CPU)
    assert [one["user"] for one in told_of_vectors(other, cases, ranked)] == first
    few = cases.take(np.arange(3))
    assert len(told_of_vectors(scorer, few, rank_cases(scorer, few, Evaluation()))) == 3
    none = Cases(cases.users[:0], cases.targets[:0], np.zeros(1, np.int64), cases.items[:0], np.zeros(0))
    assert told_of_vectors(scorer, none, ranked) == []


def test_one_vector_a_user_tells_nothing(data: Path, tmp_path: Path) -> None:
    run = make_run(epochs=1)
    output = tmp_path / "model.safetensors"
    train_run(run, data, RunInputs(), output, tmp_path / "state")
    evaluate_run(run, Evaluation(), output, data, RunInputs(), None, tmp_path / "e", tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["user_vectors"] == []
