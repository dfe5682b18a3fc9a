"""The training engine: phases one after the other, seeded steps, progress, checkpoints and resume.

Every step's randomness is seeded from where it stands, and batches are planned from (seed, epoch), so a run that was
killed and started again goes through the same steps as one that was not, to the digit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tessera.artifacts.logs import Progress, Terminated, duration, log, unbroken
from tessera.settings.training import LoopSettings
from tessera.training.adamw import AdamW
from tessera.training.checkpoint import Trained, clear, read_checkpoint, restore_moments, save_checkpoint, tidy
from tessera.training.decay import decayed, groups
from tessera.training.errors import TrainingError
from tessera.training.losses import Losses, total
from tessera.training.machine import Machine, seed_step
from tessera.training.phases import Epochs, FixedSteps, Optimizer, Phase, Position, Update, schedule
from tessera.training.trackers import Trackers

ROWS = 200
"""Rows of the curve of a phase of steps: at least half of them, where it has as many steps, and fewer than twice."""


class Engine:
    """Trains a model by a program of phases."""

    def __init__(
        self,
        model: nn.Module,
        program: Sequence[Phase],
        settings: LoopSettings,
        seed: int,
        state: Path,
        machine: Machine,
        label: str = "training",
    ) -> None:
        """
        Args:
            model: whose parameters are trained; it is moved to the machine's device.
            program: the phases.
            settings: how often the state is saved, and which trackers are told of the curve.
            seed: of batches, dropout, noise and negatives.
            state: folder of the checkpoint, named by everything that training depends on.
            machine: device and processes.
            label: what the log calls it.
        """
        self.model, self.machine, self.seed, self.label = model.to(machine.device), machine, seed, label
        self.program, self.settings = list(program), settings
        self.shrunk = decayed(model)
        self.modes = [(module, module.training) for module in model.modules()]
        self.trained = Trained(model)
        self.checkpoint = state / "checkpoint.safetensors"
        tracked = settings.trackers and machine.first
        self.trackers = Trackers(settings, f"{label}/seed-{seed}", state.name) if tracked else None
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.moved: dict[str, list[nn.Parameter]] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.best_value = -math.inf
        self.bad = self.phase = self.epoch = self.step = self.done = 0
        self.reported = 0
        self.begun = False
        self.sums: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.saved_at = time.monotonic()

    # ------------------------------------------------------------ state

    _RESUMED = (
        "history",
        "best_value",
        "bad",
        "phase",
        "begun",
        "epoch",
        "step",
        "done",
        "sums",
        "seconds",
        "reported",
    )

    def save(self) -> None:
        """Write the checkpoint, and tell the trackers of the rows that it holds; only the first process does."""
        # a kill between the two loses a row there; told before, it would stand there twice
        first, self.reported = self.reported, len(self.history)
        if self.machine.first:
            progress = {name: getattr(self, name) for name in self._RESUMED}
            if not math.isfinite(self.best_value):
                progress["best_value"] = None
            save_checkpoint(self.checkpoint, self.trained, self.optimizers.values(), self.best, progress)
        self._report(first)
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.machine.first:
            tidy(self.checkpoint.parent)
        own = {name: getattr(self, name) for name in self._RESUMED}
        saved = read_checkpoint(self.checkpoint, self.trained, own)
        if saved is None:
            return
        for name in self._RESUMED:
            setattr(self, name, saved.progress[name])
        if self.best_value is None:
            self.best_value = -math.inf
        self.trained.load_state_dict(saved.model)
        self.best = {name: value.to(self.machine.device) for name, value in saved.best.items()}
        if self.begun:
            self._take_up()
            restore_moments(saved.moments, self.trained, self.optimizers.values())
        log.info("%s: resuming at %s", self.label, self._place())

    def clear(self) -> None:
        """Remove the state: what it led to has been written."""
        if self.machine.first:
            clear(self.checkpoint)

    def _place(self) -> str:
        if self.phase >= len(self.program):
            return "its end"
        phase = self.program[self.phase]
        named = f"phase {phase.name!r}, " if len(self.program) > 1 else ""
        if isinstance(phase.until, FixedSteps):
            return f"{named}step {min(self.step + 1, phase.until.count)} of {phase.until.count}"
        return f"{named}epoch {self.epoch + 1}, step {self.step + 1}"

    # ------------------------------------------------------------ phases

    def fit(self) -> list[dict[str, Any]]:
        """Train to the end.

        Returns:
            the training curve. A phase of epochs has a row an epoch: `loss`, speed, and the validation metrics where
            they were taken; the model is left with its best weights. A phase of steps has fewer than twice `ROWS` rows:
            means since the row before. Several phases have their names in the rows, several losses a column each.
        Raises:
            TrainingError: the loss became NaN or infinite, or there is nothing to train on.
        """
        self.resume()
        try:
            while self.phase < len(self.program):
                phase = self.program[self.phase]
                if phase.batches is not None and phase.batches.targets == 0:
                    raise TrainingError("there is no training target: every training history has one item or none")
                if not self.begun:
                    self._begin(phase)
                if isinstance(phase.until, FixedSteps):
                    self._run_steps(phase, phase.until)
                else:
                    self._run_epochs(phase, phase.until)
                self._close_phase()
        except Terminated:
            log.info("%s: asked to stop: saving the state at %s", self.label, self._place())
            self.save()
            raise
        except TrainingError:
            self._report(self.reported)
            raise
        self._report(self.reported)
        if self.trackers is not None:
            self.trackers.finish()
        return self.history

    def _begin(self, phase: Phase) -> None:
        with unbroken():
            if phase.begin is not None:
                if self.phase:
                    seed_step(self.seed, self.phase)
                phase.begin()
            self._take_up()
            self.begun = True

    def _take_up(self) -> None:
        """Optimisers and modes of the phase as it stands; parameters of other phases get no gradients."""
        optimizers = self.program[self.phase].optimizers
        self._set_modes(self.program[self.phase])
        self.moved = {name: self._chosen(optimizer) for name, optimizer in optimizers.items()}
        asked = {id(parameter) for chosen in self.moved.values() for parameter in chosen}
        for parameter in self.trained.parameters():
            parameter.requires_grad_(id(parameter) in asked)
        self.optimizers = {
            name: AdamW(
                groups(self.moved[name], self.shrunk, optimizer.settings.weight_decay),
                lr=optimizer.settings.learning_rate,
                betas=(0.9, optimizer.settings.beta2),
                fused=True,
            )
            for name, optimizer in optimizers.items()
        }

    def _set_modes(self, phase: Phase) -> None:
        """A phase starts in the same modes whether another went before it or the run was resumed in it."""
        if phase.modules:
            for module in phase.modules:
                module.train()
        else:
            for module, training in self.modes:
                module.training = training

    def _chosen(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """What an optimiser moves, in the order of the model."""
        every = list(self.trained.parameters())
        if optimizer.parameters is None:
            return every
        asked = {id(parameter) for parameter in optimizer.parameters}
        chosen = [parameter for parameter in every if id(parameter) in asked]
        if len(chosen) < len(asked):
            raise ValueError("an optimiser is given a parameter that is none of the model's that require gradients")
        return chosen

    def _close_phase(self) -> None:
        if not self.best and not all(one.isfinite().all() for moved in self.moved.values() for one in moved):
            phase = self.program[self.phase].name
            raise TrainingError(
                f"{self.label}: the weights are no numbers after the last step of phase {phase!r}; lower "
                "training.learning_rate or training.gradient_clip"
            )
        with unbroken():
            if self.best:
                self.trained.load_state_dict(self.best)
            self.best, self.best_value, self.bad = {}, -math.inf, 0
            self.epoch = self.step = self.done = 0
            self.seconds, self.sums, self.begun, self.optimizers = 0.0, {}, False, {}
            self.phase += 1
        if self.phase < len(self.program):
            log.info("%s: phase %r follows", self.label, self.program[self.phase].name)
            self.save()  # what a phase begins with may take longer than a scheduler waits before it kills

    def _run_steps(self, phase: Phase, until: FixedSteps) -> None:
        every = max(1, until.count // ROWS)
        started, before = time.monotonic(), self.seconds
        with Progress(self.label, until.count, "steps", seconds=15) as progress:
            progress.update(self.step)
            while self.step < until.count:
                with unbroken():  # a checkpoint on the way out never holds half a step, nor a step without its row
                    self._step(phase, None, until.count)
                    self.seconds = before + time.monotonic() - started
                    if self.step % every == 0 or self.step == until.count:
                        self._close_row(phase)
                losses = [row["loss"] for row in self.history[-1:] if "loss" in row]
                progress.update(1, f"loss {losses[0]:.4f}" if losses else "")
                self._save_if_late(always=self.settings.checkpoint_seconds == 0)

    def _run_epochs(self, phase: Phase, until: Epochs) -> None:
        assert phase.batches is not None
        course = until.most if until.course is None else until.course
        self._weigh_start(phase, until)
        while self.epoch < until.most and self.bad < until.patience:
            self._set_modes(phase)
            plan = phase.batches.plan(self.seed, self.epoch)
            started, before = time.monotonic(), self.seconds
            with Progress(f"epoch {self.epoch + 1}", len(plan), "steps", seconds=30) as progress:
                progress.update(self.step)
                while self.step < len(plan):
                    mine = plan[self.step][self.machine.rank :: self.machine.world]
                    with unbroken():  # nor what a model counted in half a step
                        self._step(phase, phase.batches.batch(mine), course * len(plan))
                        self.seconds = before + time.monotonic() - started
                    progress.update(1, f"loss {self._mean('loss'):.4f}")
                    if self.step < len(plan) and self.settings.checkpoint_seconds:
                        self._save_if_late()
            self._close_epoch(phase, until)

    def _weigh_start(self, phase: Phase, until: Epochs) -> None:
        """Validate what the phase begins with, once: a resume finds its row."""
        row: dict[str, Any] = {**self._named(phase), "epoch": 0}
        known = any(row.items() <= old.items() for old in self.history)
        if not until.start or until.validate is None or self.epoch or self.step or known:
            return
        metrics = self._validate(until)
        with unbroken():
            self._compare(metrics[until.metric])
            self.history.append(row | metrics)
        if self.machine.first:
            log.info("as it came: %s", ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def _save_if_late(self, always: bool = False) -> None:
        if always or time.monotonic() - self.saved_at > self.settings.checkpoint_seconds:
            self.save()

    # ------------------------------------------------------------ steps

    def _step(self, phase: Phase, batch: Any, steps: int) -> None:
        """All updates of a batch; `steps` is the longest course of the phase."""
        for name, optimizer in self.optimizers.items():
            rate = schedule(phase.optimizers[name].settings, self.done, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
        at = Position(self.epoch, self.step, self.done, min(1.0, self.done / max(1, steps)), self.optimizers)
        for index, update in enumerate(phase.updates(batch, at)):
            self._seed(phase, index)
            self._update(phase, update)
        self.step += 1
        self.done += 1

    def _seed(self, phase: Phase, index: int) -> None:
        """Negatives and dropout differ between processes, which hold different rows."""
        if isinstance(phase.until, FixedSteps):
            place = (self.step, index, *([self.phase] if self.phase else []))
        else:
            place = (self.epoch, self.step, *([self.phase, index] if self.phase or index else []))
        seed_step(self.seed, *place, self.machine.rank)

    def _update(self, phase: Phase, update: Update) -> None:
        with self.machine.autocast():
            losses = update.losses()
        names = update.optimizers
        moved = [parameter for name in names for parameter in self.moved[name]]
        summed = total(losses, self.machine)
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        # of several optimisers each moves its own parameters, and the others keep no gradients of its losses
        summed.loss.backward(inputs=moved if len(self.optimizers) > 1 else None)  # type: ignore[no-untyped-call]
        self.machine.add_gradients(moved)
        for name in names:
            clip = phase.optimizers[name].settings.gradient_clip
            if clip is not None:
                nn.utils.clip_grad_norm_(self.moved[name], clip)
        self._count(losses, summed.value, summed.targets)
        for name in names:
            self.optimizers[name].step()

    def _count(self, losses: Losses, value: Tensor, targets: Tensor | None) -> None:
        """Add what a step gave to the sums of the row; the device is waited for once.

        Raises:
            TrainingError: the loss is not finite.
        """
        terms = [(name, term) for name, term in losses.items() if not term.trained]
        if sum(term.trained for term in losses.values()) > 1:
            terms = list(losses.items())
        ones = value.new_ones(())
        pairs = [(value, ones if targets is None else targets)]
        for _, term in terms:
            part = term.value.detach() if isinstance(term.value, Tensor) else value.new_tensor(term.value)
            if term.targets is None:  # beside a sum over targets, a mean stands for each of them
                pairs.append((part, ones) if targets is None else (part * targets, targets))
            else:
                pairs.append((self.machine.total(part), self.machine.total(term.targets)))
        numbers = torch.stack([torch.stack([part.double(), of.double()]) for part, of in pairs]).tolist()
        if not math.isfinite(numbers[0][0]):
            raise TrainingError(
                f"{self.label}: the loss became {numbers[0][0]} at {self._place()}; lower training.learning_rate or "
                "training.gradient_clip, or look for texts that the model cannot read"
            )
        for name, (part_value, part_count) in zip(["loss", *(name for name, _ in terms)], numbers, strict=True):
            kept = self.sums.setdefault(name, [0.0, 0.0])
            kept[0] += part_value
            kept[1] += part_count

    def _mean(self, name: str) -> float:
        value, count = self.sums.get(name, (0.0, 1.0))
        return value / max(1.0, count)

    # ------------------------------------------------------------ rows

    def _means(self) -> dict[str, float]:
        return {name: value / count for name, (value, count) in self.sums.items() if count}

    def _named(self, phase: Phase) -> dict[str, Any]:
        return {"phase": phase.name} if len(self.program) > 1 else {}

    def _close_row(self, phase: Phase) -> None:
        if self.sums:
            row = {**self._named(phase), "step": self.step, **self._means(), "seconds": round(self.seconds, 3)}
            self.history.append(row)
        self.sums = {}

    def _close_epoch(self, phase: Phase, until: Epochs) -> None:
        number, targets = self.epoch + 1, self.sums["loss"][1]
        row: dict[str, Any] = {
            **self._named(phase),
            "epoch": number,
            **self._means(),
            "seconds": round(self.seconds, 3),
            "targets_per_second": round(targets / max(self.seconds, 1e-9)),
        }
        due = until.validate is not None and (number % until.every == 0 or number == until.most)
        metrics = self._validate(until) if due else {}
        # a stop during validation leaves the epoch open: it is validated after the resume
        with unbroken():
            if due:
                self._compare(metrics[until.metric])
            row |= metrics
            self.history.append(row)
            self.epoch = number
            self.step, self.sums, self.seconds = 0, {}, 0.0
        if self.machine.first:
            shown = ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            log.info("%s; at most %s left", shown, duration((until.most - number) * row["seconds"]))
        self._save_if_late(always=self.settings.checkpoint_seconds == 0)

    def _report(self, first: int) -> None:
        """Tell the trackers of rows from one on. Of several phases, each has metrics of its own, all along one axis."""
        if self.trackers is None:
            return
        for number, row in enumerate(self.history[first:], first + 1):
            if "phase" in row:
                own = {f"{row['phase']}/{name}": value for name, value in row.items() if name != "phase"}
                self.trackers.log(own, number)
            else:
                self.trackers.log(row, row["epoch"] if "epoch" in row else row["step"])

    def _validate(self, until: Epochs) -> dict[str, float]:
        assert until.validate is not None
        self.model.eval()
        metrics = until.validate() if self.machine.first else {}
        names = list(dict.fromkeys([until.metric, "NDCG@10", "Hit@10", "validation_seconds"]))
        values = self.machine.agree([metrics.get(name, 0.0) for name in names])
        return dict(zip(names, values, strict=True))

    def _compare(self, value: float) -> None:
        """Keep the weights if they are the best so far."""
        if value > self.best_value:
            self.best_value, self.bad = value, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.trained.state_dict().items()}
        else:
            self.bad += 1
