"""How a system of items compares and what it learns from: cosines, prefixes, and times that a backbone asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asking import CPU, START, ask
from pattern import ITEMS, make_run, reads, write_dataset

import tessera
from tessera.artifacts.models import read_tensors
from tessera.data.dataset import load_dataset
from tessera.evaluation.histories import Histories
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.systems.base import VectorScorer, as_scorer, training_histories
from tessera.recommenders.train import train_run
from tessera.serving.recommender import NoTimes
from tessera.settings.base import ConfigError
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.runs import Run

COSINE = {"items": "ids", "scores": "cosine", "temperature": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("timed"), timed=True)


def untrained(run: Run) -> SequentialRecommender:
    torch.manual_seed(0)
    return SequentialRecommender.build(run, RunInputs(), np.ones(ITEMS + 1, np.int64)).eval()


def judged(run: Run, data: Path, folder: Path) -> dict[str, float]:
    output = folder / "model.safetensors"
    train_run(run, data, RunInputs(), output, folder / "state")
    files = output.with_name("evaluation.parquet"), output.with_name("metrics.json")
    metrics: dict[str, float] = evaluate_run(run, Evaluation(), output, data, reads(), None, *files)["metrics"]
    return metrics


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "bert4rec", "filter", "hstu"])
def test_scores_are_cosines_over_the_temperature(backbone: str) -> None:
    model = untrained(make_run(backbone, COSINE))
    scorer = as_scorer(model, CPU)
    assert isinstance(scorer, VectorScorer)
    rows = np.array([[3, 4, 5], [9, 0, 0]])
    states = model.backbone.encode(*(torch.from_numpy(part) for part in (rows, np.array([3, 1]))), model.items())
    wanted = F.cosine_similarity(states[:, None], model.items()[None, 1:], dim=2) / 0.1
    torch.testing.assert_close(ask(scorer, rows), wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scorer.item_vectors.norm(dim=1), torch.ones(ITEMS))


@pytest.mark.parametrize("samples", ["windows", "prefixes"])
def test_the_loss_compares_as_scoring_does(samples: str) -> None:
    model = untrained(make_run(system={**COSINE, "samples": samples}))
    items = torch.tensor([[3, 4, 5, 6]])
    if samples == "windows":
        histories, ends = Histories.of(items.numpy()), [1, 2, 3]
    else:
        cut = Histories.of(items[:, :3].numpy())
        histories, ends = Histories(cut.items, cut.lengths, cut.users, targets=items[:, 3]), [3]
    term = model.losses(histories, START)["recommendation"]
    assert int(term.targets) == len(ends)
    wanted = sum(F.cross_entropy(ask(as_scorer(model, CPU), items[:, :end].numpy()), items[:, end] - 1) for end in ends)
    torch.testing.assert_close(term.value.detach(), torch.as_tensor(wanted), atol=1e-4, rtol=1e-5)


def test_lengths_of_vectors_do_not_count_with_cosines() -> None:
    model = untrained(make_run(system=COSINE))
    histories = Histories.of(np.array([[3, 4, 5, 6]]))
    before = model._scored(model.items())
    with torch.no_grad():
        model.items.weight *= torch.rand(ITEMS + 1, 1) + 0.5  # type: ignore[operator]
    torch.testing.assert_close(model._scored(model.items()), before)
    model.losses(histories, START)["recommendation"].value.backward()
    gradient = model.items.weight.grad
    assert isinstance(gradient, torch.Tensor)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().sum() == 0  # the padding, whose vector has no direction


def test_a_learned_temperature_moves_and_is_kept(data: Path, tmp_path: Path) -> None:
    """From far too warm a start it cools."""
    judged(make_run(system={**COSINE, "temperature": 1.0, "learn_temperature": True}, epochs=4), data, tmp_path)
    kept = read_tensors(tmp_path / "model.safetensors")["scale.log_temperature"]
    assert kept.exp().item() < 0.9


def test_a_fixed_temperature_is_no_weight(data: Path, tmp_path: Path) -> None:
    assert judged(make_run(system=COSINE, epochs=12), data, tmp_path)["Hit@5"] > 0.7
    assert not any("temperature" in name for name in read_tensors(tmp_path / "model.safetensors"))


def test_prefixes_learn_the_pattern(data: Path, tmp_path: Path) -> None:
    """Of a backbone that looks both ways, too: it reads a mask after the prefix."""
    run = make_run("bert4rec", {"items": "ids", "samples": "prefixes"}, epochs=8, batch_tokens=400)
    assert judged(run, data, tmp_path)["Hit@5"] > 0.7


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "filter", "hstu"])
def test_prefixes_have_the_targets_and_the_loss_of_windows(backbone: str, data: Path) -> None:
    """Of a causal backbone, whose windows hold whole histories: what differs is how often dropout draws."""
    run = make_run(backbone, {"items": "ids", "samples": "prefixes"})
    assert run.backbone is not None
    run = run.model_copy(update={"backbone": run.backbone.model_copy(update={"max_length": 40})})
    model = untrained(run)
    histories = training_histories(load_dataset(data), model.reads_times)
    sums = {}
    for samples in ("windows", "prefixes"):
        batches = model.batches(
            run.model_copy(update={"method": run.method.model_copy(update={"samples": samples})}), histories
        )
        terms = [model.losses(batch, START)["recommendation"] for batch in batches.epoch(1, 0)]
        sums[samples] = sum(term.value.item() for term in terms), sum(int(term.targets) for term in terms)
        assert sums[samples][1] == batches.targets
    assert sums["windows"][1] == sums["prefixes"][1]
    assert sums["windows"][0] == pytest.approx(sums["prefixes"][0], rel=1e-5)


def test_a_backbone_that_reads_times_gets_them_in_training_and_when_judged(data: Path, tmp_path: Path) -> None:
    run = make_run("hstu", epochs=2)
    judged(run, data, tmp_path)
    ages = read_tensors(tmp_path / "model.safetensors")["backbone.units.0.ages"]
    # times of the pattern are 10 seconds apart: these buckets were trained, those of years were not
    start = untrained(run).state_dict()["backbone.units.0.ages"]
    seen = 1 + int(np.log(10) / 0.301)
    assert ages[seen] != start[seen]
    scorer = as_scorer(untrained(run), CPU)
    assert scorer.reads_times
    assert not as_scorer(untrained(make_run("sasrec")), CPU).reads_times


def test_a_run_that_reads_times_says_that_lists_have_none(tmp_path: Path) -> None:
    root = tmp_path / "results/x"
    data = write_dataset(root / "data", timed=True)
    folder = root / "runs/s/hstu/seed-1"
    folder.mkdir(parents=True)
    judged(make_run("hstu", epochs=1), data, folder)
    run = tessera.load(folder, device="cpu")
    with pytest.warns(NoTimes, match="positions alone count"):
        run.recommend(run.catalogue.raw_ids[3:6], k=3)


@pytest.mark.parametrize("key", ["temperature", "learn_temperature"])
def test_a_temperature_without_cosines_is_refused(key: str) -> None:
    config: dict[str, Any] = {
        "datasets": {"x": {"source": "bazaar"}},
        "systems": {"s": {"items": "ids", key: 0.1 if key == "temperature" else True}},
        "experiment": {"datasets": ["x"], "systems": ["s"]},
    }
    with pytest.raises(ConfigError, match=rf"systems\.s\.{key}: .*scores: cosine"):
        load(config)
