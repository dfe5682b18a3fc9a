"""The contract of what recommends: several vectors a user, read and scored apart, times, phases, other catalogues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import CPU, START, ask
from pattern import ITEMS, make_run, write_dataset
from torch import Tensor, nn

from tessera.artifacts.models import read_tensors
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, VectorRecommender, VectorScorer, as_scorer
from tessera.recommenders.train import train_run
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run
from tessera.settings.systems.base import TrainedSystem
from tessera.training.batches import PrefixBatches, WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update

DIM, LENGTH = 8, 6


class TwoInterests(TrainedSystem):
    """The last item and the mean of a history, each a vector of the user."""

    IMPLEMENTATION: ClassVar[str] = "test_contract:TwoInterestsRecommender"
    recommender: Literal["two_interests"] = "two_interests"


class TwoInterestsRecommender(VectorRecommender):
    """Items are read with one matrix and scored with another; a first phase trains the bias alone."""

    max_history = LENGTH
    reads_times = True

    def __init__(self, items: int) -> None:
        super().__init__()
        self.read = nn.Embedding(items + 1, DIM)
        self.scored = nn.Embedding(items + 1, DIM)
        self.fade = nn.Linear(1, 1)
        self.bias = nn.Parameter(torch.zeros(items + 1))
        self.seen: list[Histories] = []

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> TwoInterestsRecommender:
        return cls(len(popularity) - 1)

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        offsets, items, times = histories.offsets, histories.items, histories.times
        return PrefixBatches(offsets, items, LENGTH, run.training.batch_tokens, times=times)

    def catalogue(self) -> Catalogue:
        return Catalogue(self.read.weight, self.scored.weight, self.bias)

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        assert histories.times is not None
        real = (histories.items > 0)[..., None]
        vectors = F.embedding(histories.items, catalogue.read) * real
        rows = torch.arange(len(vectors))
        last = vectors[rows, histories.lengths - 1]
        ages = histories.times[rows, histories.lengths - 1, None] - histories.times
        weights = torch.sigmoid(self.fade(torch.nan_to_num(ages)[..., None].float() / 10)) * real
        return torch.stack([last, (vectors * weights).sum(1) / weights.sum(1)], 1)

    def losses(self, histories: Histories, at: Position) -> Losses:
        self.seen.append(histories)
        assert histories.targets is not None
        catalogue = self.catalogue()
        scores = self.scores(self.users(histories, catalogue), catalogue)
        loss = F.cross_entropy(scores, histories.targets - 1, reduction="sum")
        return {"recommendation": Term(loss, torch.tensor(len(histories))), "size": Term(self.bias.square().mean())}

    def program(self, run: Run, histories: TrainingHistories, validate: Callable[[], dict[str, float]]) -> list[Phase]:
        popular = torch.from_numpy(np.bincount(histories.items, minlength=len(self.bias)))

        def updates(_: None, at: Position) -> Iterator[Update]:
            yield Update(partial(self._popularity, popular), "bias")

        first = Phase(updates, FixedSteps(30), {"bias": Optimizer(run.training, [self.bias])}, name="popularity")
        return [first, *super().program(run, histories, validate)]

    def _popularity(self, popular: Tensor) -> Losses:
        return {"popularity": Term(F.cross_entropy(self.bias[1:], popular[1:] / popular[1:].sum()))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("contract"), timed=True)


def run_of(**training: Any) -> Run:
    run = make_run(**{"learning_rate": 0.05, "epochs": 3, **training})
    return run.model_copy(update={"method": TwoInterests(), "backbone": None, "system": "two", "recommender": "two"})


def trained(run: Run, data: Path, folder: Path) -> Path:
    output = folder / "model.safetensors"
    train_run(run, data, RunInputs(), output, folder / "state")
    return output


def test_a_program_of_two_phases_trains_and_is_judged(data: Path, tmp_path: Path) -> None:
    run = run_of(epochs=12, patience=12)
    output = trained(run, data, tmp_path)
    rows = [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"popularity", "epochs"}
    assert {"recommendation", "size", "loss"} <= set(rows[-1])
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["recommendation"] + rows[-1]["size"], rel=1e-5)
    files = tmp_path / "e.parquet", tmp_path / "m.json"
    found = evaluate_run(run, Evaluation(), output, data, RunInputs(), None, *files)
    assert found["metrics"]["Hit@5"] > 0.5
    assert read_tensors(output)["bias"].abs().max() > 0.01


def test_a_stop_between_and_inside_phases_changes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(checkpoint_seconds=0.0)
    whole = trained(run, data, tmp_path / "whole")
    for name, method in (("first", "_popularity"), ("second", "losses")):
        plain, calls = getattr(TwoInterestsRecommender, method), []

        def stop(self: Any, *arguments: Any, plain: Any = plain, calls: list[int] = calls) -> Losses:
            calls.append(1)
            if len(calls) == 20:
                raise KeyboardInterrupt
            losses: Losses = plain(self, *arguments)
            return losses

        monkeypatch.setattr(TwoInterestsRecommender, method, stop)
        with pytest.raises(KeyboardInterrupt):
            trained(run, data, tmp_path / name)
        monkeypatch.undo()
        assert trained(run, data, tmp_path / name).read_bytes() == whole.read_bytes()


def test_batches_say_whose_histories_they_are_and_when(data: Path) -> None:
    dataset = load_dataset(data)
    model = TwoInterestsRecommender(ITEMS)
    learned = TrainingHistories(*dataset.train_histories(), dataset.train_times())
    batches = model.batches(make_run(), learned)
    count = 0
    for numbers in batches.plan(1, 0):
        batch = batches.batch(numbers)
        for user, items, times, target in zip(batch.users, batch.items, batch.times, batch.targets, strict=True):
            rows = slice(int(learned.offsets[user - 1]), int(learned.offsets[user]))
            own, clock = learned.items[rows].tolist(), learned.times[rows].tolist()
            read = items[items > 0].tolist()
            place = clock.index(float(times[0]))
            assert own[place : place + len(read) + 1] == [*read, int(target)]
            assert torch.isnan(times[len(read) :]).all()
            count += 1
    assert count == batches.targets


def test_scores_are_the_best_of_the_vectors_and_the_bias() -> None:
    torch.manual_seed(0)
    model = TwoInterestsRecommender(ITEMS)
    nn.init.normal_(model.bias)
    scorer = as_scorer(model, CPU)
    assert isinstance(scorer, VectorScorer)
    asked = Histories.of(np.array([[3, 4, 0], [5, 6, 7]]), times=np.array([[1.0, 2.0, np.nan], [1.0, 5.0, 9.0]]))
    users = scorer.states(asked)
    assert users.shape == (2, 2, DIM)
    expected = (users @ model.scored.weight[1:].T).amax(1) + model.bias[1:]
    torch.testing.assert_close(scorer(asked), expected.detach())
    assert torch.equal(scorer.item_vectors, model.scored.weight[1:])


def test_a_part_of_the_catalogue_scores_as_in_the_whole() -> None:
    torch.manual_seed(0)
    model = TwoInterestsRecommender(ITEMS)
    asked = Histories.of(np.array([[3, 4], [9, 0]]), times=np.array([[1.0, 2.0], [1.0, np.nan]]))
    catalogue = model.catalogue()
    chosen = torch.tensor([7, 2, 11])
    some = model.scores(model.users(asked, catalogue), catalogue.take(chosen))
    torch.testing.assert_close(some, model.score(asked, catalogue)[:, chosen - 1])


def test_a_larger_catalogue_scores_the_old_items_alike(tmp_path: Path) -> None:
    """Items behind a table alone have no weights of their own: a system that was trained knows new ones, too."""
    from tessera.artifacts.tables import write_item_table
    from tessera.recommenders.systems.backbone import SequentialRecommender

    vectors = np.random.default_rng(1).standard_normal((ITEMS + 5, 4)).astype(np.float32)
    run = make_run(system={"items": {"table": "t", "standardize": False}})
    models = []
    for name, count in (("old", ITEMS), ("new", ITEMS + 5)):
        path = tmp_path / f"{name}.parquet"
        write_item_table(path, np.arange(1, count + 1), vectors[:count])
        inputs = RunInputs(tables={"t": str(path)})
        models.append(SequentialRecommender.build(run, inputs, np.ones(count + 1, np.int64)))
    old, new = models
    new.load_state_dict(old.state_dict())
    rows = np.array([[3, 4, 5]])
    torch.testing.assert_close(ask(as_scorer(new, CPU), rows)[:, :ITEMS], ask(as_scorer(old, CPU), rows))
    assert ask(as_scorer(new, CPU), np.array([[3, ITEMS + 2]])).shape == (1, ITEMS + 5)
    assert set(old.losses(Histories.of(rows), START)) == {"recommendation"}
