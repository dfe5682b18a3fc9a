"""What an engine runs: a program of phases, each with its batches, its updates and its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from tessera.settings.training import OptimizerSettings
from tessera.training.losses import Losses


class Batches(Protocol):
    """Planned batches of an epoch."""

    targets: int
    """Training targets of an epoch."""

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The members of each batch."""

    def batch(self, numbers: np.ndarray) -> Any:
        """The batch of some members, as the updates read it."""


@dataclass(frozen=True)
class Position:
    """Where training stands, for what changes on the way."""

    epoch: int
    """From 0; always 0 in a phase of steps."""
    step: int
    """From 0, within the epoch or the phase of steps."""
    done: int
    """Steps of the phase that are done."""
    share: float
    """Share of the phase's longest course that is done, from 0 to 1: what weights are annealed by."""
    optimizers: Mapping[str, torch.optim.Optimizer]
    """By name, for what has to forget what they remember."""


class Update(NamedTuple):
    """One optimisation step."""

    losses: Callable[[], Losses]
    """Makes its losses; called under mixed precision, after torch was seeded for it."""
    optimizer: str | tuple[str, ...] = "model"
    """The one that moves its parameters, or all that do so from one backward pass."""

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Their names."""
        return (self.optimizer,) if isinstance(self.optimizer, str) else self.optimizer


Updates = Callable[[Any, Position], Iterable[Update]]
"""The optimisation steps of a batch: mostly one; several where a batch is used again, or optimisers alternate."""


@dataclass(frozen=True)
class Optimizer:
    """AdamW over some parameters."""

    settings: OptimizerSettings
    parameters: Sequence[nn.Parameter] | None = None
    """None takes all of the model's that require gradients."""


@dataclass(frozen=True)
class FixedSteps:
    """So many steps, without validation."""

    count: int


@dataclass(frozen=True)
class Epochs:
    """Passes over the batches, until validations no longer get better; the best weights are kept."""

    most: int
    validate: Callable[[], dict[str, float]] | None = None
    """Metrics of the model as it stands; None makes exactly `most` passes and keeps the last weights."""
    patience: int = 1
    """Validations without a better value before the end."""
    every: int = 1
    """Epochs between validations."""
    metric: str = "NDCG@10"
    """What decides."""
    course: int | None = None
    """Epochs over which rates fall and weights are annealed; None takes `most`."""
    start: bool = False
    """Whether the weights that the phase begins with count too, as after epoch 0: they are validated first."""


@dataclass(frozen=True)
class Phase:
    """A part of a training."""

    updates: Updates
    until: FixedSteps | Epochs
    optimizers: Mapping[str, Optimizer]
    batches: Batches | None = None
    """None where updates make the batch of a step themselves."""
    name: str = "training"
    begin: Callable[[], None] | None = None
    """Called once before the first step, not after a resume: codebooks that start somewhere, weights handed over.
    What it changes are trained parameters or persistent buffers."""
    modules: Sequence[nn.Module] = field(default=())
    """What is put into training mode at the start, and before every epoch; empty takes the modes that the model had
    when it was given to the engine."""


def schedule(settings: OptimizerSettings, step: int, steps: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then constant, or falling to zero at the last step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    # epochs may differ by a step or two, so that the last ones may lie beyond the course
    done = min(1.0, (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return settings.learning_rate * shape[settings.schedule]
