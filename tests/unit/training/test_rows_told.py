"""What trackers are told: each row of the curve once, also where a training was killed, and phases apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tessera.settings.training import Training
from tessera.training import engine
from tessera.training.engine import Engine
from tessera.training.losses import Losses, Term
from tessera.training.machine import Machine
from tessera.training.phases import Epochs, Optimizer, Phase, Position, Update

SETTINGS = Training(device="cpu", trackers=["tensorboard"], checkpoint_seconds=0.0)


class Rows:
    """A tracker that keeps what it is told."""

    def __init__(self, kept: list[tuple[int, dict[str, Any]]]) -> None:
        self.kept = kept

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """A row."""
        self.kept.append((step, dict(row)))

    def finish(self) -> None:
        """The end."""


class Batches:
    """Three batches an epoch."""

    targets = 3

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """One member each."""
        return [np.array([number]) for number in range(3)]

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        """The members."""
        return numbers


def made(state: Path, phases: int) -> Engine:
    torch.manual_seed(1)
    model = nn.Linear(2, 1)

    def updates(batch: np.ndarray, at: Position) -> Iterator[Update]:
        def losses() -> Losses:
            return {"loss": Term(model(torch.ones(1, 2)).square().sum(), torch.tensor(1.0))}

        yield Update(losses)

    names = ["first", "second"][:phases]
    program = [Phase(updates, Epochs(3), {"model": Optimizer(SETTINGS)}, Batches(), name) for name in names]
    return Engine(model, program, SETTINGS, 1, state, Machine(SETTINGS), "x")


@pytest.mark.parametrize("phases", [1, 2])
def test_each_row_is_told_once_also_after_a_kill(phases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed where a row is made and the state that holds it is not saved; the epoch is gone through again."""
    kept: list[tuple[int, dict[str, Any]]] = []
    monkeypatch.setattr(engine, "Trackers", lambda *_: Rows(kept))
    save, saves = Engine.save, 0

    def killed(self: Engine) -> None:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise KeyboardInterrupt
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, phases).fit()
    assert len(kept) == 1
    history = made(tmp_path, phases).fit()
    assert len(history) == 3 * phases
    assert [step for step, _ in kept] == list(range(1, 3 * phases + 1))
    losses = [f"{row['phase']}/loss" if phases > 1 else "loss" for row in history]
    assert [row[name] for (_, row), name in zip(kept, losses, strict=True)] == [row["loss"] for row in history]
