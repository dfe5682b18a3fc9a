"""Dropout with cheap random numbers on a CPU.

Drawing a Bernoulli number an element costs a CPU a sixth of a training step; sixteen random bits an element cost a
fraction of that. The rate is met to one part in 65,536 and the scale is exact for the rate that is used.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes each element with a probability and scales the rest, while training (Srivastava et al., JMLR 2014).

    Seeded by torch's generator, as `torch.nn.Dropout` is, which it falls back to off the CPU.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate, training=True)
        return x * dropout_mask(x.numel(), self.rate).view(x.shape).to(x.dtype)


def dropout_mask(count: int, rate: float) -> Tensor:
    """(count,) float32: 0 with probability `rate`, else 1 / (1 - rate)."""
    dropped = min(round(rate * _LEVELS), _LEVELS - 1)
    seed = int(torch.randint(2**62, ()).item())
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, -(-count // 4), np.uint64)
    scale = np.float32(_LEVELS / (_LEVELS - dropped))
    # numpy compares and scales unsigned 16 bits several times faster than torch
    return torch.from_numpy(np.multiply(words.view(np.uint16)[:count] >= np.uint16(dropped), scale, dtype=np.float32))
