"""A stop at any moment: history and weights are those of the run that nobody disturbed, byte for byte."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tessera.artifacts import files, logs, models
from tessera.artifacts.logs import Terminated, stage
from tessera.settings.training import Steps, Training
from tessera.training import checkpoint, engine, losses, phases
from tessera.training.engine import Engine
from tessera.training.history import write_history
from tessera.training.losses import Term, reported
from tessera.training.machine import Machine
from tessera.training.phases import Epochs, FixedSteps, Optimizer, Phase, Position, Update

ENGINE = {file.__file__ for file in (engine, losses, phases, checkpoint, files, logs, models)}


class Model(nn.Module):
    """Two layers with dropout and a moving average, as a batch of numbers shows them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3), nn.Linear(5, 2))
        self.register_buffer("mean", torch.zeros(2))

    def loss(self, rows: Tensor) -> Tensor:
        made = self.layers(rows)
        with torch.no_grad():
            self.mean.mul_(0.9).add_(made.mean(0), alpha=0.1)
        return (made @ made.T).logsumexp(1).mean() + (made - self.mean).square().mean()

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(batch.float()) * len(batch), torch.tensor(len(batch))


class Batches:
    targets = 6

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        return list(np.random.default_rng((seed, epoch)).permutation(6).reshape(3, 2))

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        return numbers[:, None] + np.arange(4)


def by_steps(folder: Path, every: float) -> None:
    settings = Steps(steps=4, batch=8, learning_rate=0.05, schedule="cosine", checkpoint_seconds=every, device="cpu")
    model = Model().train()

    def updates(_: None, at: Position) -> Iterator[Update]:
        rows = torch.from_numpy(np.random.default_rng(at.step).standard_normal((8, 4)).astype(np.float32))
        for _ in range(2):
            yield Update(lambda: {"loss": Term(model.loss(rows)), "rows": reported(float(at.step))})

    train(model, [Phase(updates, FixedSteps(4), {"model": Optimizer(settings)})], settings, folder)


def epochs(model: Model, settings: Training, name: str = "epochs") -> Phase:
    def validate() -> dict[str, float]:
        return {"NDCG@10": -float(model.mean.sum()), "Hit@10": 0.0, "validation_seconds": 0.0}

    def updates(batch: np.ndarray, at: Position) -> Iterator[Update]:
        yield Update(lambda: {"loss": Term(*model(torch.from_numpy(batch)))})

    until = Epochs(settings.epochs, validate, settings.patience, settings.validate_every)
    return Phase(updates, until, {"model": Optimizer(settings)}, Batches(), name, modules=[model])


def by_epochs(folder: Path, every: float) -> None:
    settings = Training(epochs=3, device="cpu", checkpoint_seconds=every, validate_every=2, patience=1)
    model = Model()
    train(model, [epochs(model, settings)], settings, folder)


def by_phases(folder: Path, every: float) -> None:
    """Epochs, then steps whose two optimisers take turns, from weights that the first phase hands over."""
    settings = Training(epochs=2, device="cpu", checkpoint_seconds=every)
    model = Model()
    first, last = (list(layer.parameters()) for layer in (model.layers[0], model.layers[2]))

    def begin() -> None:
        with torch.no_grad():
            model.layers[2].weight.add_(torch.randn(2, 5))

    def updates(_: None, at: Position) -> Iterator[Update]:
        rows = torch.randn(4, 4, generator=torch.Generator().manual_seed(at.step))
        yield Update(lambda: {"a": Term(model.loss(rows)), "b": Term(rows.mean() * model.mean.mean())}, "first")
        yield Update(lambda: {"c": Term(-at.share * model.loss(rows))}, "last")

    optimizers = {"first": Optimizer(settings, first), "last": Optimizer(settings, last)}
    second = Phase(updates, FixedSteps(3), optimizers, name="steps", begin=begin)
    train(model, [epochs(model, settings), second], settings, folder)


def train(model: Model, program: list[Phase], settings: Steps | Training, folder: Path) -> None:
    trained = Engine(model, program, settings, 1, folder / "state", Machine(settings))
    write(folder, trained.fit(), model)
    trained.clear()


def write(folder: Path, history: list[dict[str, Any]], model: nn.Module) -> None:
    kept = [{name: value for name, value in row.items() if "second" not in name} for row in history]
    write_history(folder / "history.jsonl", kept)
    models.write_tensors(folder / "model.safetensors", model.state_dict())


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "history.jsonl").read_bytes(), (folder / "model.safetensors").read_bytes()


class Stop:
    """Sends SIGTERM before line number `at` that the engine executes; `lines` counts them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.lines = at, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        return self._line if code.co_filename in ENGINE and code.co_name != "stage" else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
        return self._line

    def watch(self, train: Callable[[Path, float], None], folder: Path, every: float) -> None:
        before, traced = signal.getsignal(signal.SIGTERM), sys.gettrace()
        try:
            with stage(None):
                sys.settrace(self)
                train(folder, every)
        finally:
            sys.settrace(traced)
            signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("every", [0.0, 600.0], ids=["saved-each-step", "saved-at-the-stop"])
@pytest.mark.parametrize("train", [by_steps, by_epochs, by_phases])
def test_sigterm_before_any_line_of_the_engine(
    train: Callable[[Path, float], None], every: float, tmp_path: Path
) -> None:
    undisturbed = Stop()
    undisturbed.watch(train, tmp_path / "undisturbed", every)
    expected = results(tmp_path / "undisturbed")
    assert undisturbed.lines > 100
    stopped = 0
    for at in range(1, undisturbed.lines + 1, 13 if every else 43):
        folder = tmp_path / str(at)
        try:
            Stop(at).watch(train, folder, every)
        except Terminated:
            stopped += 1
            train(folder, every)
        assert results(folder) == expected, at
        assert not list(folder.glob("state/.*")), at
    assert stopped > 10


def test_a_kill_while_a_phase_begins_loses_no_step_of_the_phase_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed outright, before any state was due: what a phase begins with may take longer than a scheduler waits."""
    by_phases(tmp_path / "undisturbed", 600.0)
    begin, step, steps = Engine._begin, Engine._step, []

    def killed(self: Engine, phase: Phase) -> None:
        if self.phase:
            raise KeyboardInterrupt
        begin(self, phase)

    monkeypatch.setattr(Engine, "_begin", killed)
    with pytest.raises(KeyboardInterrupt):
        by_phases(tmp_path / "killed", 600.0)
    monkeypatch.setattr(Engine, "_begin", begin)
    monkeypatch.setattr(Engine, "_step", lambda *arguments: (steps.append(1), step(*arguments)))
    by_phases(tmp_path / "killed", 600.0)
    assert len(steps) == 3  # those of the second phase
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
