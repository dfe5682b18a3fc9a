"""Named losses of an optimisation step, and how they make the one number that is differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from tessera.training.machine import Machine


class Term(NamedTuple):
    """A loss under its name, or a number that is told beside it."""

    value: Tensor | float
    """() a sum over `targets`; without them the mean of the step, over all processes."""
    targets: Tensor | None = None
    """() how many targets of this process were summed; the loss is the mean over the targets of all processes."""
    trained: bool = True
    """False for what is told in the curve and is no part of the loss."""


Losses = Mapping[str, Term]
"""Losses of a step by name. They are added; a weight is in the value."""


def reported(value: Tensor | float) -> Term:
    """A number for the curve that is no part of the loss."""
    return Term(value, trained=False)


class Total(NamedTuple):
    """The losses of a step in one."""

    loss: Tensor
    """() what is differentiated in this process; gradients of all processes are added."""
    value: Tensor
    """() what the curve calls `loss`: a sum over `targets` of all processes, or the mean of the step."""
    targets: Tensor | None
    """() targets of all processes; None where the losses are means."""


def total(losses: Losses, machine: Machine) -> Total:
    """The sum of all trained losses.

    Where one is a sum over targets, a mean beside it stands for each of this process's targets, so that the mean over
    the targets of all processes holds it once.

    Raises:
        ValueError: no loss is trained.
    """
    trained = [term for term in losses.values() if term.trained]
    if not trained:
        raise ValueError("an optimisation step without a loss")
    targets = next((term.targets for term in trained if term.targets is not None), None)
    if targets is None:
        mean = _added([term.value for term in trained])
        # every process computes it from the rows of all, and gradients of all are added
        return Total(mean / machine.world, mean.detach(), None)
    everywhere = machine.total(targets)
    parts: list[Tensor | float] = []
    for term in trained:
        if term.targets is targets:
            parts.append(term.value)
        elif term.targets is None:
            parts.append(term.value * targets)
        else:
            parts.append(term.value * (everywhere / machine.total(term.targets)))
    summed = _added(parts)
    return Total(summed * (1 / everywhere), machine.total(summed.detach()), everywhere)


def _added(values: Sequence[Tensor | float]) -> Tensor:
    added = values[0]
    for value in values[1:]:
        added = added + value
    assert isinstance(added, Tensor)
    return added
