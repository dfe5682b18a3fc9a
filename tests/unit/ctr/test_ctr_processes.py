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
SMALL = {**ENCODED, "model": "lemur", "long": 20, "recent": 4}
MODELS: dict[str, dict[str, Any]] = {
    "din": {"model": "din"},
    "sim_soft": {"model": "sim_soft", "k": 4},
    "bank": {**SMALL, "content_id": 0.1, "forwarded": 0.5, "learned": 0.3, "refresh": "age"},
    "bank, few": {**SMALL, "forwarded": 0.1, "learned": 0.01, "standardized": False, "pretraining": 1},
    "end_to_end": {**SMALL, "regime": "end_to_end", "documents": {**READER, "recompute": True}},
    "frozen": {**SMALL, "regime": "frozen", "content_id": 0.1, "negatives": "clicked"},
}
UNSEEN = re.compile(r"(key|norm|out|project)\.bias|level\.mean")
"""What is added alike to all that a softmax or a standardisation reads: its gradient is rounding, and Adam's steps are
as long as any."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("shared")
    rows = random_rows(users=12, items=ITEMS, length=40, ties=False)
    data = write_log(folder / "data", rows, ITEMS, {item: "ab"[item % 2] for item in range(1, ITEMS + 1)})
    make_samples(samples_settings(split={"past": 0.1, "valid": 0.15, "test": 0.15}), data, folder / "samples")
    return folder / "samples", write_content(folder / "shop", ITEMS)


def run_of(world: tuple[Path, Path], processes: int, training: Any = None, **model: Any) -> Any:
    """A run whose last batch has one row: the second process holds none of it."""
    assert len(load_samples(world[0]).of("train")) % BATCH == 1
    shape = {"batch": BATCH, "processes": processes, "learning_rate": 0.001, "gradient_clip": 1.0, **(training or {})}
    return make_run(training=shape, **model)


def train(run: Any, world: tuple[Path, Path], folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The curve without its seconds, and the weights."""
    output = folder / "model.safetensors"
    launch(run, world[0], None, output, folder / "state", "", folder / "train.log", world[1])
    curve = [json.loads(line) for line in (folder / "history.jsonl").open()]
    return [{name: told for name, told in row.items() if name != "seconds"} for row in curve], read_tensors(output)


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_give_the_numbers_of_one(name: str, world: tuple[Path, Path], tmp_path: Path) -> None:
    """Among them what is seen of other rows: Dice's means, what is standardised, negatives, draws, the bank."""
    curve, single = train(run_of(world, 1, **MODELS[name]), world, tmp_path / "one")
    other, shared = train(run_of(world, 2, **MODELS[name]), world, tmp_path / "two")
    assert len(other) == len(curve) >= 12
    for row, expected in zip(other, curve, strict=True):
        assert row == pytest.approx(expected, abs=2e-5)
    assert shared.keys() == single.keys()
    for part, value in single.items():
        atol = 2e-3 if UNSEEN.search(part) else 2e-4
        torch.testing.assert_close(shared[part], value, atol=atol, rtol=0, msg=part)
    one, two = (json.loads((tmp_path / folder / "model.json").read_text()) for folder in ("one", "two"))
    assert two["validation"] == pytest.approx(one["validation"], abs=1e-4)
    about = {name: told.get("bank", {}).get("cosine", {}) for name, told in (("one", one), ("two", two))}
    assert about["two"] == pytest.approx(about["one"], abs=1e-4)


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
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(world, 2, {"checkpoint_seconds": 0.0}, **MODELS["bank"])
    curve, whole = train(run, world, tmp_path / "whole")
    (tmp_path / "stopped_member.py").write_text(STOPPED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(tessera.__file__).parents[1])]))
    with monkeypatch.context() as patched:
        patched.setattr(
            tessera.ctr.train,
            "run_processes",
            lambda _, job, processes: run_processes("stopped_member", job, processes),
        )
        with pytest.raises(ChildProcessError):
            train(run, world, tmp_path / "stopped")
    assert not (tmp_path / "stopped/model.safetensors").exists()
    again, resumed = train(run, world, tmp_path / "stopped")
    assert "resuming at step 10 of" in (tmp_path / "stopped/train.log").read_text()
    assert again == curve
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    assert not list((tmp_path / "stopped/state").glob("*/checkpoint.safetensors"))
