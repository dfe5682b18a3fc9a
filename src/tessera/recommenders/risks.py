"""Risks of environments in a step: means over the targets of all processes, which a function may then be taken of."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor


def means_of_all(sums: Tensor, counts: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Means (environments,) over the targets of all processes, and () how many targets those have.

    A function of the means is one loss of the step, the same in all processes: given as a mean of the step (`Term`
    without targets) beside a sum over `targets`, it has the gradient that one process would have.

    Args:
        sums: (environments,) of this process.
        counts: (environments,) how many were summed.
        targets: () targets of this process, by which a mean of the step is weighed.
    """
    totals = torch.cat([sums.detach().double(), counts.double(), targets.double()[None]])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
    of_all, everywhere, every_target = totals[: len(sums)], totals[len(sums) : -1], totals[-1]
    means = (of_all / everywhere.clamp(min=1)).to(sums.dtype)
    share = (every_target / targets.clamp(min=1) / everywhere.clamp(min=1)).to(sums.dtype)
    return means + (sums - sums.detach()) * share, everywhere
