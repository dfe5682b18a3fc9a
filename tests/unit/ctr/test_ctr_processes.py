"""Click models in several processes: the numbers of one, whatever depends on other rows of a step; kills."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from ctr_logs import make_run, random_rows, samples_settings, write_log
from ctr_world import ENCODED, READER, make_batch, make_catalogue, settings, write_content
from test_ctr_models import KINDS
from test_ctr_training import write_ids

import tessera
import tessera.ctr.train
from tessera.artifacts.models import read_tensors
from tessera.ctr.batch import Batch
from tessera.ctr.data import load_samples
from tessera.ctr.samples import make_samples
from tessera.ctr.task import build
from tessera.ctr.train import launch
from tessera.training.launch import run_processes

torch.set_num_threads(1)
ITEMS, BATCH = 30, 25
SOURCES = str(Path(tessera.__file__).parents[1])
SMALL = {**ENCODED, "model": "lemur", "long": 20, "recent": 4}
MODELS: dict[str, dict[str, Any]] = {
    **{name: {"model": name} for name in ("avg", "din", "sdim")},
    **{name: {"model": name, "k": 4} for name in ("sim_hard", "sim_soft", "eta", "twin", "mirrn", "r2led")},
    "bank": {**SMALL, "content_id": 0.1, "forwarded": 0.5, "learned": 0.3, "refresh": "age"},
    "bank, few": {**SMALL, "forwarded": 0.1, "learned": 0.01, "standardized": False, "pretraining": 1},
    "end_to_end": {**SMALL, "regime": "end_to_end", "documents": {**READER, "recompute": True}},
    "frozen": {**SMALL, "regime": "frozen", "content_id": 0.1, "negatives": "clicked"},
}
UNSEEN = re.compile(r"(key|norm|out|project)\.bias|level\.mean")
"""What is added alike to all that a softmax or a standardisation reads: its gradient is rounding, and Adam's steps are
as long as any."""


World = tuple[Path, Path, Path]
"""Samples, codes, and content."""
Told = tuple[list[dict[str, float]], dict[str, torch.Tensor]]
"""A curve and weights."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("shared")
    rows = random_rows(users=12, items=ITEMS, length=40, ties=False)
    data = write_log(folder / "data", rows, ITEMS, {item: "ab"[item % 2] for item in range(1, ITEMS + 1)})
    make_samples(samples_settings(split={"past": 0.1, "valid": 0.15, "test": 0.15}), data, folder / "samples")
    torch.manual_seed(0)
    return folder / "samples", write_ids(folder / "codes.parquet", ITEMS), write_content(folder / "shop", ITEMS)


def run_of(world: World, processes: int, name: str) -> Any:
    """A run whose last batch has one row: the second process holds none of it."""
    assert len(load_samples(world[0]).of("train")) % BATCH == 1
    training = {"batch": BATCH, "processes": processes, "learning_rate": 0.001, "gradient_clip": 1.0}
    return make_run(training={**training, "checkpoint_seconds": 0.0}, **MODELS[name])


def outcome(folder: Path) -> Told:
    """The curve without its seconds, and the weights."""
    curve = [json.loads(line) for line in (folder / "history.jsonl").open()]
    told = [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
    return told, read_tensors(folder / "model.safetensors")


def train(run: Any, world: World, folder: Path) -> Told:
    samples, codes, content = world
    launch(run, samples, codes, folder / "model.safetensors", folder / "state", "", folder / "train.log", content)
    return outcome(folder)


MEMBER = """
from pathlib import Path
from tessera.ctr.train import train_model
from tessera.settings.ctr import CTRRun
from tessera.training.launch import one_of_processes
with one_of_processes() as job:
    samples, codes, content = map(Path, job["world"])
    for name, run in job["runs"].items():
        folder = Path(job["folder"]) / name
        train_model(
            CTRRun.model_validate(run), samples, codes, folder / "model.safetensors", folder / "state", content=content
        )
"""


@pytest.fixture(scope="module")
def shared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each model, trained in two processes; all in the same two, which are long in starting."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "member.py").write_text(MEMBER)
    runs = {name: run_of(world, 2, name).model_dump(mode="json") for name in MODELS}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(folder), SOURCES]))
        job = {"log": None, "threads": 1, "world": [*map(str, world)], "folder": str(folder), "runs": runs}
        run_processes("member", job, 2)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_give_the_numbers_of_one(name: str, world: World, shared: Path, tmp_path: Path) -> None:
    """Among them what is seen of other rows: Dice's means, what is standardised, negatives, draws, the bank."""
    curve, single = train(run_of(world, 1, name), world, tmp_path)
    other, weights = outcome(shared / name)
    assert len(other) == len(curve) >= 12
    for row, expected in zip(other, curve, strict=True):
        assert row == pytest.approx(expected, abs=2e-5)
    assert weights.keys() == single.keys()
    for part, value in single.items():
        atol = 2e-3 if UNSEEN.search(part) else 2e-4
        torch.testing.assert_close(weights[part], value, atol=atol, rtol=0, msg=part)
    one, two = (json.loads((folder / "model.json").read_text()) for folder in (tmp_path, shared / name))
    assert two["validation"] == pytest.approx(one["validation"], abs=1e-4)
    assert two.get("bank", {}).get("cosine") == pytest.approx(one.get("bank", {}).get("cosine"), abs=1e-4)


@pytest.mark.parametrize("keys", [keys for keys in KINDS if keys["model"] != "lemur"])
def test_a_share_may_be_empty(keys: dict[str, Any]) -> None:
    batch = make_batch([3, 5])
    batch = Batch(**{part.name: getattr(batch, part.name)[:0] for part in fields(batch)})
    model = build(settings(**keys), make_catalogue()).train()
    logits = model(batch)
    assert logits.shape == (0,)
    logits.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


STOPPED = """
from tessera.ctr.train import main
from tessera.training.engine import Engine
update, done = Engine._update, []
def stopping(*arguments):
    if len(done) == 9:
        raise SystemExit(3)
    done.append(1)
    update(*arguments)
Engine._update = stopping
main()
"""


def test_two_processes_that_were_stopped_end_with_the_same_bytes(
    world: World, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(world, 2, "bank")
    (tmp_path / "stopped_member.py").write_text(STOPPED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), SOURCES]))
    with monkeypatch.context() as patched:
        patched.setattr(
            tessera.ctr.train, "run_processes", lambda _, job, count: run_processes("stopped_member", job, count)
        )
        with pytest.raises(ChildProcessError):
            train(run, world, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    curve, weights = train(run, world, tmp_path)
    assert "resuming at step 10 of" in (tmp_path / "train.log").read_text()
    expected, whole = outcome(shared / "bank")
    assert curve == expected
    assert weights.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights.items())
    assert not list((tmp_path / "state").glob("*/checkpoint.safetensors"))
