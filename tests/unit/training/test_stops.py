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
from tessera.settings.steps import Steps
from tessera.settings.training import Training
from tessera.training import checkpoint, loop, steps
from tessera.training.loop import Trainer, write_history
from tessera.training.machine import Machine
from tessera.training.steps import StepTrainer, Update

TRAINERS = {file.__file__ for file in (loop, steps, checkpoint, files, logs, models)}


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

    def updates(step: int) -> Iterator[Update]:
        rows = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 4)).astype(np.float32))
        for _ in range(2):
            yield lambda: (model.loss(rows), {"rows": float(step)})

    trainer = StepTrainer(model, settings, folder / "state", Machine(settings), updates)
    write(folder, trainer.fit(), model)
    trainer.clear()


def by_epochs(folder: Path, every: float) -> None:
    settings = Training(epochs=3, device="cpu", checkpoint_seconds=every, validate_every=2, patience=1)
    model = Model()

    def validate() -> dict[str, float]:
        return {"NDCG@10": -float(model.mean.sum()), "Hit@10": 0.0, "validation_seconds": 0.0}

    trainer = Trainer(model, Batches(), settings, 1, validate, folder / "state", Machine(settings))
    write(folder, trainer.fit(), model)
    checkpoint.clear(trainer.checkpoint)


def write(folder: Path, history: list[dict[str, Any]], model: nn.Module) -> None:
    kept = [{name: value for name, value in row.items() if "second" not in name} for row in history]
    write_history(folder / "history.jsonl", kept)
    models.write_tensors(folder / "model.safetensors", model.state_dict())


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "history.jsonl").read_bytes(), (folder / "model.safetensors").read_bytes()


class Stop:
    """Sends SIGTERM before line number `at` that the trainers execute; `lines` counts them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.lines = at, 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        return self._line if code.co_filename in TRAINERS and code.co_name != "stage" else None

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
@pytest.mark.parametrize("train", [by_steps, by_epochs])
def test_sigterm_before_any_line_of_the_trainers(
    train: Callable[[Path, float], None], every: float, tmp_path: Path
) -> None:
    undisturbed = Stop()
    undisturbed.watch(train, tmp_path / "undisturbed", every)
    expected = results(tmp_path / "undisturbed")
    assert undisturbed.lines > 100
    stopped = 0
    for at in range(1, undisturbed.lines + 1, 7 if every else 23):
        folder = tmp_path / str(at)
        try:
            Stop(at).watch(train, folder, every)
        except Terminated:
            stopped += 1
            train(folder, every)
        assert results(folder) == expected, at
        assert not list(folder.glob("state/.*")), at
    assert stopped > 10
