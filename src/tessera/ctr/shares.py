"""What the processes of a step make together: each holds its share of the rows, and a step means the same for all.

Losses are computed in every process alike, from what is gathered of all rows, and gradients flow back to the process
that holds a row (`Machine.gather`). A model that nobody trains in several processes holds all rows itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera.training.machine import Machine


class Shares:
    """The rows of a step over all processes."""

    def __init__(self, machine: Machine | None = None) -> None:
        """
        Args:
            machine: the processes; None is a process alone.
        """
        self.machine = machine if machine is not None and machine.world > 1 else None

    def all(self, rows: Tensor) -> Tensor:
        """(n, ...) the rows of all processes in the order of the step; gradients flow back."""
        return rows if self.machine is None else self.machine.gather_all(rows)

    def mine(self, items: Tensor) -> Tensor:
        """This process's share of items (n,) that all processes have alike."""
        return items if self.machine is None else items[self.machine.rank :: self.machine.world]

    def distinct(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct items (n,) of all processes, ascending, and where among them this process's (...) stand."""
        distinct, at = torch.unique(items, return_inverse=True)
        if self.machine is None:
            return distinct, at
        everywhere: Tensor = torch.unique(self.all(distinct))
        return everywhere, torch.searchsorted(everywhere, items)

    def mean(self, own: Tensor, rows: int) -> Tensor:
        """() the mean over the rows of all processes of what has the mean `own` over this one's; NaN of no rows."""
        return own if self.machine is None else self.all(own.expand(rows)).mean()

    def sum(self, own: Tensor) -> Tensor:
        """(...) the sum over processes; gradients flow back."""
        return own if self.machine is None else self.machine.gather(own[None]).sum(0)

    def total(self, counts: Tensor) -> Tensor:
        """The sums of counts over processes, without gradient."""
        return counts if self.machine is None else self.machine.total(counts)

    def of_first(self, numbers: Tensor) -> Tensor:
        """Numbers (n,) as the first process has them: it is seeded as a process alone would be, the others are not."""
        return numbers if self.machine is None else numbers.new_tensor(self.machine.agree(numbers.tolist()))


class AcrossRows(nn.Module):
    """A part of a model that depends on other rows of a step than its own: those of all processes."""

    shares = Shares()


def share(model: nn.Module, machine: Machine) -> Shares:
    """Let the parts of a model see the rows of all processes of a machine."""
    shares = Shares(machine)
    for module in model.modules():
        if isinstance(module, AcrossRows):
            module.shares = shares
    return shares
