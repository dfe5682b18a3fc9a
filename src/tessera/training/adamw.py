"""AdamW for training that is never compiled: torch's own loads its compiler with the first optimiser, over a second."""

from __future__ import annotations

import inspect
from typing import Any

import torch

_OWN = torch.optim.AdamW


class AdamW(_OWN):
    """torch's AdamW, to the bit; what its methods do for `torch.compile` alone is left out."""

    add_param_group = inspect.unwrap(_OWN.add_param_group)
    zero_grad = inspect.unwrap(_OWN.zero_grad)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step with the gradients that are there."""
        return _STEP(self, closure)


_STEP = inspect.unwrap(_OWN.step)
