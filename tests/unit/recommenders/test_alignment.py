"""Recommendation adaptation training: the alignment loss by hand, where its gradient goes, and whole runs with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import summed
from pattern import ITEMS, make_run, reads
from test_train import judge, make_table

import tessera.recommenders.train
from forked_processes import run_processes
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.artifacts.tables import ArtifactError
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.train import launch, run_identity, train_run

DIM = 16


def aligned_run(recommender="sasrec", align=None, **training):
    system = {"items": {"table": "t", "adapter": [32], "align": align or {}}}
    return make_run(recommender, system, **training)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    train_run(make_run(epochs=2), data, reads(), path, path.parent / "state")
    return path


def by_hand(collaborative, adapted, temperature, multiply):
    """LLMEmb's alignment, one pair of targets at a time."""
    n = len(collaborative)
    logits = [[float(u @ w) / temperature for w in adapted] for u in collaborative]
    total = 0.0
    likes = [[float(adapted[i] @ adapted[j] + collaborative[i] @ collaborative[j]) / 2 for j in range(n)]
             for i in range(n)]  # fmt: skip
    scale = temperature if multiply else 1 / temperature
    soft = [np.exp(np.array(row) * scale) / np.exp(np.array(row) * scale).sum() for row in likes]
    for i in range(n):
        row = np.array(logits[i])
        column = np.array([logits[j][i] for j in range(n)])
        total -= float((soft[i] * (row - np.log(np.exp(row).sum()))).sum())
        total -= float(sum(soft[j][i] * (column[j] - np.log(np.exp(column).sum())) for j in range(n)))
    return total / 2 / n


@pytest.mark.parametrize("deduplicate", [True, False])
@pytest.mark.parametrize("target_temperature", ["divide", "multiply"])
def test_the_loss_is_that_of_the_paper(deduplicate, target_temperature, tmp_path):
    torch.manual_seed(1)
    align = {"deduplicate": deduplicate, "target_temperature": target_temperature, "weight": 0.5, "temperature": 1.5}
    run = aligned_run(align=align)
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"items.weight": torch.randn(ITEMS + 1, DIM)})
    model = SequentialRecommender.build(
        run, reads(make_table(tmp_path, skip=(3,)), path), np.ones(ITEMS + 1, np.int64)
    ).double()
    targets = torch.tensor([5, 9, 5, 3, 21])  # 3 has no row in the table: left out
    kept = [5, 9, 21] if deduplicate else [5, 9, 5, 21]
    vectors = model.items() * 20  # away from zero, where every softmax is flat
    found = model.items.auxiliary_losses(vectors, targets)["alignment"]
    wanted = 0.5 * by_hand(
        model.items.teacher[kept].numpy(), vectors[kept].detach().numpy(), 1.5, target_temperature == "multiply"
    )
    assert found.item() == pytest.approx(wanted, rel=1e-9)


def test_the_model_adds_it_to_the_mean_loss_and_only_the_adapter_learns_from_it(teacher, tmp_path):
    torch.manual_seed(2)
    run = aligned_run(align={"weight": 0.3})
    run = run.model_copy(update={"backbone": run.backbone.model_copy(update={"dropout": 0.0})})
    table, popularity = make_table(tmp_path), np.ones(ITEMS + 1, np.int64)
    model = SequentialRecommender.build(run, reads(table, teacher), popularity)
    plain = SequentialRecommender.build(run, reads(table), popularity)  # as when judging: without a teacher
    plain.load_state_dict(model.state_dict())
    histories = torch.tensor([[1, 2, 3, 4], [5, 6, 2, 0]])
    (total, count), (bare, _) = summed(model, histories), summed(plain, histories)
    further = model.items.auxiliary_losses(model.items(), torch.tensor([2, 3, 4, 6]))["alignment"]
    torch.testing.assert_close(total / count, bare / count + further)
    further.backward()
    learning = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert learning
    assert all(name.startswith("items.adapter") for name in learning)
    assert plain.items.auxiliary_losses(plain.items(), torch.tensor([1, 2])) == {}


@pytest.mark.parametrize("recommender", ["sasrec", "gru4rec", "bert4rec"])
def test_alignment_brings_items_nearer_to_the_teacher(recommender, data, teacher, tmp_path):
    table = make_table(tmp_path)
    likeness = {}
    for weight in (1e-9, 3.0):
        run = aligned_run(recommender, {"weight": weight, "temperature": 0.2, "normalize": True}, epochs=6)
        output = tmp_path / str(weight) / "model.safetensors"
        train_run(run, data, reads(table, teacher), output, tmp_path / "state")
        tensors = read_tensors(output)
        assert not any("teacher" in name for name in tensors)
        judge(run, data, output, table)  # asks for no teacher
        model = SequentialRecommender.build(run, reads(table), np.ones(ITEMS + 1, np.int64))
        model.load_state_dict(tensors)
        with torch.no_grad():
            own, others = model.items()[1:], read_tensors(teacher)["items.weight"][1:]
            likeness[weight] = torch.cosine_similarity(own, others).mean().item()
    assert likeness[3.0] > likeness[1e-9] + 0.1


def test_two_processes_align_over_the_targets_of_both(data, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(tessera.recommenders.train, "run_processes", run_processes)
    one = aligned_run(align={"weight": 3.0, "temperature": 0.2, "normalize": True}, epochs=2, gradient_clip=0.5)
    one = one.model_copy(update={"backbone": one.backbone.model_copy(update={"dropout": 0.0})})
    two = one.model_copy(update={"training": one.training.model_copy(update={"processes": 2})})
    table, found = make_table(tmp_path), []
    for name, run in (("one", one), ("two", two)):
        output = tmp_path / name / "model.safetensors"
        launch(run, data, reads(table, teacher), output, tmp_path / "state" / name, "", None)
        found.append(read_tensors(output))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_the_same_run_gives_the_same_bytes_after_a_stop(data, teacher, tmp_path, monkeypatch):
    from tessera.training.engine import Engine

    run = aligned_run(epochs=4, checkpoint_seconds=0)
    table = make_table(tmp_path)
    train_run(run, data, reads(table, teacher), tmp_path / "whole" / "model.safetensors", tmp_path / "a")
    closed = Engine._close_epoch

    def stop(engine, *arguments):
        closed(engine, *arguments)
        if engine.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "_close_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, data, reads(table, teacher), tmp_path / "cut" / "model.safetensors", tmp_path / "b")
    monkeypatch.undo()
    assert list((tmp_path / "b").glob("*/checkpoint.safetensors"))
    train_run(run, data, reads(table, teacher), tmp_path / "cut" / "model.safetensors", tmp_path / "b")
    whole, cut = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    assert len(cut.with_name("history.jsonl").read_text().splitlines()) == 4
    assert json.loads(cut.with_suffix(".json").read_text())["run"]["method"]["items"]["align"]["system"] == "id"


def test_the_teacher_belongs_to_the_identity(data, teacher, tmp_path):
    run, table = aligned_run(), make_table(tmp_path)
    other = tmp_path / "other.safetensors"
    write_tensors(other, {"items.weight": torch.zeros(ITEMS + 1, DIM)})
    names = {run_identity(run, data, reads(table, path), "") for path in (None, teacher, other)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"items.weight": torch.zeros(ITEMS + 1, 8)}, "have width 8, but the aligned backbone has dim 16"),
        ({"items.weight": torch.zeros(4, DIM)}, "vectors of 3 items, the dataset has 30"),
        ({"items.adapter.0.weight": torch.zeros(4, DIM)}, "expected a run of `items: ids`"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(tensors, message, data, tmp_path):
    path = tmp_path / "wrong.safetensors"
    write_tensors(path, tensors)
    with pytest.raises(ArtifactError, match=message):
        train_run(aligned_run(), data, reads(make_table(tmp_path), path), tmp_path / "m.safetensors", tmp_path)


def test_an_aligned_run_without_its_teacher_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="is aligned with id/sasrec, but its weights were not given"):
        train_run(aligned_run(), data, reads(make_table(tmp_path)), tmp_path / "m.safetensors", tmp_path)


def test_the_official_preset_takes_the_published_habits_but_switches_nothing_on():
    official = {"table": "t", "preset": "official"}
    found = make_run(system={"items": {**official, "align": {"deduplicate": True}}}).method.items
    assert (found.align.deduplicate, found.align.target_temperature) == (True, "multiply")
    assert make_run(system={"items": {**official, "align": {}}}).method.items.align.deduplicate is False
    assert make_run(system={"items": official}).method.items.align is None
    assert type(found).model_validate(found.model_dump()) == found
