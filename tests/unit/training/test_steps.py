"""Training for a number of steps: schedules, resume to the digit, processes that share a step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from forked_processes import share
from tessera.artifacts.logs import Terminated
from tessera.settings.training import Steps
from tessera.training.engine import Engine
from tessera.training.errors import TrainingError
from tessera.training.losses import Losses, Term, reported
from tessera.training.machine import Machine
from tessera.training.phases import FixedSteps, Optimizer, Phase, Position, Update, Updates, schedule

SETTINGS = Steps(steps=9, batch=8, learning_rate=0.05, warmup_steps=3, schedule="cosine", checkpoint_seconds=0.0)


def network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3), nn.Linear(5, 2))
    model[0].bias.requires_grad_(False)
    model.register_parameter("rare", nn.Parameter(torch.ones(2)))  # every second step alone
    return model


def train(
    state: Path, settings: Steps = SETTINGS, stop: int | None = None, dropout: bool = True
) -> tuple[nn.Module, list]:
    model = network().train(dropout)
    machine = Machine(settings)

    def updates(_: None, at: Position) -> Iterator[Update]:
        if at.step == stop:
            raise Terminated
        rows = np.random.default_rng((settings.seed, at.step)).standard_normal((settings.batch, 4)).astype(np.float32)
        mine = torch.from_numpy(machine.share(rows))

        def losses() -> Losses:
            out = model(mine) * model.rare if at.step % 2 else model(mine)
            made = machine.gather(out) + machine.gather(0.1 * out.square())
            return {"loss": Term((made @ made.T).logsumexp(1).mean() + made.square().mean()), "twice": reported(2.0)}

        yield Update(losses)
        yield Update(losses)

    engine = made(model, settings, state, machine, updates)
    try:
        return model, engine.fit()
    finally:
        if stop is None:
            engine.clear()


def made(model: nn.Module, settings: Steps, state: Path, machine: Machine, updates: Updates) -> Engine:
    program = [Phase(updates, FixedSteps(settings.steps), {"model": Optimizer(settings)})]
    return Engine(model, program, settings, settings.seed, state, machine)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_schedule(kind: str) -> None:
    settings = SETTINGS.model_copy(update={"schedule": kind})
    rates = [schedule(settings, step, 103) for step in range(103)]
    assert rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05])
    assert rates[53] == pytest.approx({"constant": 0.05, "linear": 0.025, "cosine": 0.025}[kind])
    assert all(b <= a for a, b in pairwise(rates[3:]))
    # an epoch that is longer than the one before leads beyond the course: never to a rate below 0
    beyond = [schedule(settings, step, 103) for step in (103, 110, 300)]
    assert beyond == pytest.approx([0.05 if kind == "constant" else 0.0] * 3, abs=1e-12)
    assert min(beyond) >= 0


def test_only_what_asks_for_gradients_is_trained(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in network().state_dict().items()}
    model, history = train(tmp_path)
    after = model.state_dict()
    assert torch.equal(before["0.bias"], after["0.bias"])
    assert not torch.equal(before["0.weight"], after["0.weight"])
    assert [row["step"] for row in history] == list(range(1, 10))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[0]["twice"] == 2.0
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_stopped_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole, history = train(tmp_path / "a")
    with pytest.raises(Terminated):
        train(tmp_path / "b", stop=5)
    resumed, continued = train(tmp_path / "b")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [row["loss"] for row in history] == [row["loss"] for row in continued]


def test_one_backward_pass_moves_several_optimisers(tmp_path: Path) -> None:
    """As torch's own two optimisers do; each has its rate and its clip, and what belongs to none stays."""
    clipped = SETTINGS.model_copy(update={"learning_rate": 0.01, "gradient_clip": 0.02})
    free = SETTINGS.model_copy(update={"gradient_clip": None, "weight_decay": 0.1})

    def loss(model: nn.Module, step: int) -> torch.Tensor:
        rows = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 4)).astype(np.float32))
        return model(rows).square().sum()

    def updates(_: None, at: Position) -> Iterator[Update]:
        yield Update(lambda: {"loss": Term(loss(model, at.step))}, ("first", "last"))

    model, by_hand = network().eval(), network().eval()
    optimizers = {
        "first": Optimizer(clipped, [model[0].weight]),  # type: ignore[index]
        "last": Optimizer(free, [model[2].weight]),  # type: ignore[index]
    }
    Engine(model, [Phase(updates, FixedSteps(9), optimizers)], SETTINGS, 1, tmp_path, Machine(SETTINGS)).fit()
    moved = [(by_hand[0].weight, clipped), (by_hand[2].weight, free)]  # type: ignore[index]
    theirs = [torch.optim.AdamW([p], betas=(0.9, s.beta2), weight_decay=s.weight_decay) for p, s in moved]
    for step in range(9):
        for (_, settings), optimizer in zip(moved, theirs, strict=True):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = schedule(settings, step, 9)
        loss(by_hand, step).backward()
        torch.nn.utils.clip_grad_norm_([by_hand[0].weight], 0.02)  # type: ignore[index]
        for optimizer in theirs:
            optimizer.step()
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    model = network()

    def updates(_: None, at: Position) -> Iterator[Update]:
        yield Update(lambda: {"loss": Term(model(torch.ones(1, 4)).sum() * (float("nan") if at.step == 4 else 1.0))})

    with pytest.raises(TrainingError, match="nan at step 5"):
        made(model, SETTINGS, tmp_path, Machine(SETTINGS), updates).fit()


def test_weights_that_the_last_step_breaks_are_told(tmp_path: Path) -> None:
    """The loss is finite still, its gradient is not."""
    model = network()

    def updates(_: None, at: Position) -> Iterator[Update]:
        last = at.step == SETTINGS.steps - 1
        yield Update(lambda: {"loss": Term((model(torch.ones(1, 4)).sum() * (0.0 if last else 1.0)).abs().sqrt())})

    with pytest.raises(TrainingError, match="no numbers after the last step of phase 'training'"):
        made(model, SETTINGS, tmp_path, Machine(SETTINGS), updates).fit()


def test_a_batch_divides_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(SETTINGS)
    machine.world = 3
    with pytest.raises(ValueError, match="8 does not divide among 3"):
        machine.share(np.arange(8))


def _member(folder: Path) -> None:
    shared = SETTINGS.model_copy(update={"processes": 2, "device": "cpu"})
    trained, curve = train(folder / "two", shared, dropout=False)
    weights = {name: value.tolist() for name, value in trained.state_dict().items()}
    kept = {"weights": weights, "losses": [row["loss"] for row in curve]}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(kept))


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    alone, history = train(tmp_path / "one", dropout=False)
    share(2, _member, tmp_path)
    told = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert told[0]["weights"] == told[1]["weights"]
    for name, value in alone.state_dict().items():
        assert torch.allclose(torch.tensor(told[0]["weights"][name]), value, atol=1e-6), name
    assert told[0]["losses"] == pytest.approx([row["loss"] for row in history], abs=1e-6)
