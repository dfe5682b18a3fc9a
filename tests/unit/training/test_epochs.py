"""A stop at an awkward moment: training goes on as if it had not been."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tessera.artifacts.logs import Terminated, stage, unbroken
from tessera.settings.training import Training
from tessera.training.adamw import AdamW
from tessera.training.engine import Engine
from tessera.training.losses import Term
from tessera.training.machine import Machine
from tessera.training.phases import Epochs, Optimizer, Phase, Position, Update


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


def _train(state: Path, wrap: Callable[[Engine], None] = lambda engine: None) -> tuple[list[dict[str, Any]], Tensor]:
    settings = Training(epochs=3, device="cpu", checkpoint_seconds=60.0)
    model = _Model()

    def validate() -> dict[str, float]:
        return {"NDCG@10": -float(model.weight.detach().sum()), "Hit@10": 0.0, "validation_seconds": 0.0}

    def updates(batch: np.ndarray, at: Position) -> Iterator[Update]:
        yield Update(lambda: {"loss": Term(*model(torch.from_numpy(batch)))})

    until = Epochs(3, validate, patience=10)
    program = [Phase(updates, until, {"model": Optimizer(settings)}, _Batches(), modules=[model])]
    engine = Engine(model, program, settings, 1, state, Machine(settings))
    wrap(engine)
    history = engine.fit()
    return [{k: v for k, v in row.items() if "second" not in k} for row in history], model.weight.detach()


def _stop_in(moment: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], None]:
    """SIGTERM right after the second time that the moment comes."""

    def wrap(engine: Engine) -> None:
        holder: Any = AdamW if moment == "step" else engine
        plain, calls = getattr(holder, moment), []

        def stopped(*args: Any) -> Any:
            found = plain(*args)
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return found

        monkeypatch.setattr(holder, moment, stopped)

    return wrap


@pytest.mark.parametrize("moment", ["step", "_validate"])
def test_sigterm_between_weights_and_counters_changes_nothing(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = _train(tmp_path / "undisturbed")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Terminated), stage(None):
            _train(tmp_path / "stopped", _stop_in(moment, monkeypatch))
    finally:
        signal.signal(signal.SIGTERM, before)
        monkeypatch.undo()
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
