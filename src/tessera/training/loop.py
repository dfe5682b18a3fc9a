"""The one training loop: seeded steps, early stopping on validation, progress, checkpoints and resume.

A step's randomness is seeded from (seed, epoch, step) and batches are planned from (seed, epoch), so a run that was
killed and started again goes through the same steps as one that was not, to the digit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.files import write_text
from tessera.artifacts.logs import Progress, Terminated, duration, log, unbroken
from tessera.settings.training import Training
from tessera.training.checkpoint import load_checkpoint, save_checkpoint, tidy
from tessera.training.machine import Machine, seed_step


class Batches(Protocol):
    """Planned batches of an epoch."""

    targets: int
    """Training targets of an epoch."""

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The members of each batch."""

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        """(batch, length) model input."""


class TrainingError(ValueError):
    """Training that cannot go on."""


def make_optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """AdamW; decay on matrices inside layers only, not on item vectors, biases and norms."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim >= 2 and not name.startswith("items.") and "positions" not in name
        (decayed if inside else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


class Trainer:
    """Trains a model that gives (sum of losses, number of targets) for a batch."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        settings: Training,
        seed: int,
        validate: Callable[[], dict[str, float]] | None,
        state: Path,
        machine: Machine,
    ) -> None:
        """
        Args:
            model: called with (batch, length) int64 input.
            batches: what an epoch goes through.
            settings: the loop.
            seed: of batches, dropout and negatives.
            validate: metrics of the model as it stands; `NDCG@10` decides. None trains all epochs and keeps the last
                weights.
            state: folder of the checkpoint, named by everything that training depends on.
            machine: device and processes.
        """
        self.machine = machine
        self.model = model.to(machine.device)
        self.optimizer = make_optimizer(self.model, settings)
        self.wrapped = machine.wrap(self.model)
        self.batches = batches
        self.settings = settings
        self.seed = seed
        self.validate = validate
        self.checkpoint = state / "checkpoint.safetensors"
        self.events = event_writer(state / "tensorboard") if settings.tensorboard and machine.first else None
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.best_value = -math.inf
        self.bad = 0
        self.epoch = 0
        self.step = 0
        self.steps_done = 0
        self.loss_sum = 0.0
        self.target_sum = 0
        self.seconds = 0.0
        self.saved_at = time.monotonic()

    # ------------------------------------------------------------ state

    _RESUMED = ("history", "best_value", "bad", "epoch", "step", "steps_done", "loss_sum", "target_sum", "seconds")

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        if self.machine.first:
            progress = {name: getattr(self, name) for name in self._RESUMED}
            if not math.isfinite(self.best_value):
                progress["best_value"] = None
            save_checkpoint(self.checkpoint, self.model, self.optimizer, self.best, progress)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.machine.first:
            tidy(self.checkpoint.parent)
        own = {name: getattr(self, name) for name in self._RESUMED}
        found = load_checkpoint(self.checkpoint, self.model, self.optimizer, own)
        if found is None:
            return
        self.best, progress = found
        self.best = {name: value.to(self.machine.device) for name, value in self.best.items()}
        for name in self._RESUMED:
            setattr(self, name, progress[name])
        if self.best_value is None:
            self.best_value = -math.inf
        log.info("resuming at epoch %d, step %d", self.epoch + 1, self.step)

    # ------------------------------------------------------------ training

    def fit(self) -> list[dict[str, Any]]:
        """Train to the end; the model is left with the best weights, or the last where nothing validates.

        Returns:
            one dict an epoch: loss, speed, and the validation metrics where they were taken.
        Raises:
            TrainingError: the loss became NaN or infinite, or there is nothing to train on.
        """
        if self.batches.targets == 0:
            raise TrainingError("there is no training target: every training history has one item or none")
        self.resume()
        try:
            while self.epoch < self.settings.epochs and self.bad < self.settings.patience:
                self._train_epoch()
                self._close_epoch()
        except Terminated:
            log.info("asked to stop: saving the state at epoch %d, step %d", self.epoch + 1, self.step)
            self.save()
            raise
        if self.validate is not None:
            self.model.load_state_dict(self.best)
        return self.history

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.steps_done + 1) / max(1, self.settings.warmup_steps))
        return self.settings.learning_rate * warm

    def _train_epoch(self) -> None:
        self.wrapped.train()
        plan = self.batches.plan(self.seed, self.epoch)
        started = time.monotonic()
        before = self.seconds
        with Progress(f"epoch {self.epoch + 1}", len(plan), "steps", seconds=30) as progress:
            progress.update(self.step)
            while self.step < len(plan):
                numbers = plan[self.step]
                with unbroken():  # a checkpoint on the way out never holds half a step, nor what a model counted in one
                    self._train_step(self.batches.batch(numbers[self.machine.rank :: self.machine.world]))
                    self.seconds = before + time.monotonic() - started
                progress.update(1, f"loss {self.loss_sum / max(1, self.target_sum):.4f}")
                late = time.monotonic() - self.saved_at > self.settings.checkpoint_seconds > 0
                if late and self.step < len(plan):
                    self.save()

    def _train_step(self, batch: np.ndarray) -> None:
        # negatives and dropout differ between processes that hold different histories
        seed_step(self.seed, self.epoch, self.step, self.machine.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        histories = torch.from_numpy(batch).to(self.machine.device, non_blocking=True)
        with self.machine.autocast():
            total, count = self.wrapped(histories)
        count = self.machine.total(count)
        self.optimizer.zero_grad(set_to_none=True)
        # the mean over all targets of the step, whichever process holds them
        self.machine.backward(total * (self.machine.world / count))
        if self.settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        value = float(self.machine.total(total.detach()))
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at epoch {self.epoch + 1}, step {self.step}; "
                "lower training.learning_rate or training.gradient_clip"
            )
        self.optimizer.step()
        self.loss_sum += value
        self.target_sum += int(count)
        self.step += 1
        self.steps_done += 1

    def _close_epoch(self) -> None:
        number = self.epoch + 1
        row: dict[str, Any] = {
            "epoch": number,
            "loss": self.loss_sum / self.target_sum,
            "seconds": round(self.seconds, 3),
            "targets_per_second": round(self.target_sum / max(self.seconds, 1e-9)),
        }
        due = number % self.settings.validate_every == 0 or number == self.settings.epochs
        due = due and self.validate is not None
        found = self._validate() if due else {}
        # a stop during validation leaves the epoch open: it is validated after the resume
        with unbroken():
            if due:
                self._compare(found["NDCG@10"])
            self.history.append(row | found)
            self.epoch = number
            self.step, self.loss_sum, self.target_sum, self.seconds = 0, 0.0, 0, 0.0
            row |= found
            if self.events is not None:
                for name, value in row.items():
                    self.events.add_scalar(name, value, self.epoch)
                self.events.flush()
        told = ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        left = (self.settings.epochs - self.epoch) * row["seconds"]
        if self.machine.first:
            log.info("%s; at most %s left", told, duration(left))
        if self.settings.checkpoint_seconds == 0 or time.monotonic() - self.saved_at > self.settings.checkpoint_seconds:
            self.save()

    def _validate(self) -> dict[str, float]:
        self.wrapped.eval()
        found = self.validate() if self.validate is not None and self.machine.first else {}
        names = ["NDCG@10", "Hit@10", "validation_seconds"]
        values = self.machine.agree([found.get(name, 0.0) for name in names])
        return dict(zip(names, values, strict=True))

    def _compare(self, value: float) -> None:
        """Keep the weights if they are the best so far."""
        if value > self.best_value:
            self.best_value, self.bad = value, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.bad += 1


def event_writer(folder: Path) -> Any:
    """A writer of TensorBoard events.

    Raises:
        TrainingError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError(
            "training.tensorboard needs the extra: pip install -e '.[tensorboard]' -c constraints.txt"
        ) from None
    return SummaryWriter(str(folder))


def write_history(path: str | Path, history: list[dict[str, Any]]) -> None:
    """Write the training curve: a JSON line an epoch."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in history))
