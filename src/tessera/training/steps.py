"""Training for a fixed number of steps: what embedders and the model that is built on the spot share.

Like the epochs of `loop.py`: every step is seeded from its number, the state is one safetensors file that is replaced
atomically, and a killed run goes on to the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.artifacts.logs import Progress, Terminated, log, unbroken
from tessera.settings.steps import Steps
from tessera.training.checkpoint import clear, load_checkpoint, save_checkpoint, tidy
from tessera.training.loop import TrainingError
from tessera.training.machine import Machine, seed_step

Update = Callable[[], tuple[Tensor, dict[str, float]]]
"""Makes the loss of one optimisation step over all processes (from gathered rows), and numbers to log."""

ROWS = 200
"""Most rows of a training curve."""


def schedule(settings: Steps, step: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then constant, or falling to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return settings.learning_rate * shape[settings.schedule]


class Trained(nn.Module):
    """What training changes of a model, under its own names: what a checkpoint of it holds.

    These are parameters that require gradients, and persistent buffers, such as moving averages (changed in place).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)
        kept = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in kept:
                self.register_buffer(name.replace(".", "/"), buffer)


class StepTrainer:
    """Trains the parameters of a model that require gradients, for a fixed number of steps."""

    def __init__(
        self,
        model: nn.Module,
        settings: Steps,
        state: Path,
        machine: Machine,
        updates: Callable[[int], Iterable[Update]],
        label: str = "training",
    ) -> None:
        """
        Args:
            model: put into training mode by the caller, who knows which layers drop out.
            settings: number of steps, rate, seed.
            state: folder of the checkpoint, named by everything that training depends on.
            machine: device and processes.
            updates: the optimisation steps of a step number; mostly one, several where a batch is used again.
            label: what the log calls it.
        """
        self.settings = settings
        self.machine = machine
        self.updates = updates
        self.label = label
        self.trained = Trained(model)
        self.parameters = list(self.trained.parameters())
        matrices = [p for p in self.parameters if p.ndim >= 2]
        others = [p for p in self.parameters if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)
        self.checkpoint = state / "checkpoint.safetensors"
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self.counted = 0
        self.step = 0
        self.seconds = 0.0
        self.saved_at = time.monotonic()

    _RESUMED = ("history", "sums", "counted", "step", "seconds")

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        if self.machine.first:
            progress = {name: getattr(self, name) for name in self._RESUMED}
            save_checkpoint(self.checkpoint, self.trained, self.optimizer, {}, progress)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.machine.first:
            tidy(self.checkpoint.parent)
        own = {name: getattr(self, name) for name in self._RESUMED}
        found = load_checkpoint(self.checkpoint, self.trained, self.optimizer, own)
        if found is None:
            return
        for name in self._RESUMED:
            setattr(self, name, found[1][name])
        log.info("%s: resuming at step %d of %d", self.label, self.step, self.settings.steps)

    def fit(self) -> list[dict[str, Any]]:
        """Train to the end.

        Returns:
            the training curve: at most `ROWS` rows with the step and the mean loss and numbers since the row before.
        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        self.resume()
        every = max(1, self.settings.steps // ROWS)
        started, before = time.monotonic(), self.seconds
        try:
            with Progress(self.label, self.settings.steps, "steps", seconds=15) as progress:
                progress.update(self.step)
                while self.step < self.settings.steps:
                    with unbroken():  # a checkpoint on the way out never holds half a step, nor a step without its row
                        self._train_step()
                        self.seconds = before + time.monotonic() - started
                        if self.step % every == 0 or self.step == self.settings.steps:
                            self._close_row()
                    progress.update(1, f"loss {self.history[-1]['loss']:.4f}" if self.history else "")
                    late = time.monotonic() - self.saved_at > self.settings.checkpoint_seconds
                    if self.settings.checkpoint_seconds == 0 or late:
                        self.save()
        except Terminated:
            log.info("%s: asked to stop: saving the state at step %d", self.label, self.step)
            self.save()
            raise
        return self.history

    def clear(self) -> None:
        """Remove the state: what it led to has been written."""
        if self.machine.first:
            clear(self.checkpoint)

    def _train_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = schedule(self.settings, self.step)
        for index, update in enumerate(self.updates(self.step)):
            seed_step(self.settings.seed, self.step, index, self.machine.rank)
            with self.machine.autocast():
                loss, numbers = update()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.label}: the loss became {value} at step {self.step + 1}; lower training.learning_rate "
                    "or training.gradient_clip, or look for texts that the model cannot read"
                )
            self.optimizer.zero_grad(set_to_none=True)
            (loss / self.machine.world).backward()  # type: ignore[no-untyped-call]
            self.machine.add_gradients(self.parameters)
            if self.settings.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
            self.optimizer.step()
            for name, number in {"loss": value, **numbers}.items():
                self.sums[name] = self.sums.get(name, 0.0) + number
            self.counted += 1
        self.step += 1

    def _close_row(self) -> None:
        if self.counted:
            means = {name: total / self.counted for name, total in self.sums.items()}
            self.history.append({"step": self.step, **means, "seconds": round(self.seconds, 3)})
        self.sums, self.counted = {}, 0
