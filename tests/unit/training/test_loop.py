"""A stop at an awkward moment: training goes on as if it had not been."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tessera.artifacts.logs import Terminated, stage, unbroken
from tessera.settings.training import Training
from tessera.training.loop import Trainer
from tessera.training.machine import Machine


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return ((self.weight * torch.rand(3) - batch.float().mean()) ** 2).sum(), torch.tensor(len(batch))


class _Batches:
    targets = 4

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        return [np.array([epoch, 1]), np.array([2, 3])]

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        return numbers[:, None]


def _train(state: Path, wrap: Callable[[Trainer], None] = lambda trainer: None) -> tuple[list[dict[str, Any]], Tensor]:
    settings = Training(epochs=3, device="cpu", checkpoint_seconds=60.0)
    model = _Model()

    def validate() -> dict[str, float]:
        return {"NDCG@10": -float(model.weight.detach().sum()), "Hit@10": 0.0, "validation_seconds": 0.0}

    trainer = Trainer(model, _Batches(), settings, 1, validate, state, Machine(settings))
    wrap(trainer)
    history = trainer.fit()
    return [{k: v for k, v in row.items() if "second" not in k} for row in history], model.weight.detach()


def _stop_in(moment: str) -> Callable[[Trainer], None]:
    """SIGTERM right after the second time that the moment comes."""

    def wrap(trainer: Trainer) -> None:
        holder: Any = trainer.optimizer if moment == "step" else trainer
        plain, calls = getattr(holder, moment), []

        def stopped(*args: Any) -> Any:
            found = plain(*args)
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        setattr(holder, moment, stopped)

    return wrap


@pytest.mark.parametrize("moment", ["step", "validate"])
def test_sigterm_between_weights_and_counters_changes_nothing(tmp_path: Path, moment: str) -> None:
    undisturbed = _train(tmp_path / "undisturbed")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Terminated), stage(None):
            _train(tmp_path / "stopped", _stop_in(moment))
    finally:
        signal.signal(signal.SIGTERM, before)
    history, weights = _train(tmp_path / "stopped")
    assert history == undisturbed[0]
    assert torch.equal(weights, undisturbed[1])


def _asked_inside(done: list[int]) -> None:
    with stage(None), unbroken():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append(1)


def test_an_end_asked_for_inside_waits() -> None:
    done: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Terminated):
            _asked_inside(done)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == [1]
