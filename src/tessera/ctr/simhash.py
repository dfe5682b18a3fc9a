"""SimHash (Charikar, STOC 2002): signs of random projections, packed into one integer, compared by XOR and popcount.

Two vectors at an angle of `a` differ in a bit with probability a / pi, so that few differing bits mean a large cosine.
A code does not change with the length of its vector: a sum and a mean hash alike.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

MOST_BITS = 62
"""A code is one integer, of 32 bits where that is enough and of 64 bits beyond."""


class SimHash(nn.Module):
    """Fixed Gaussian projections (width, bits), drawn from torch's generator and saved with the model."""

    projections: Tensor

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= MOST_BITS:
            raise ValueError(f"{bits} bits in a hash code, expected 1 to {MOST_BITS}")
        self.bits = bits
        self.register_buffer("projections", torch.randn(width, bits))
        weights = 2 ** np.arange(bits, dtype=np.int64)
        self.register_buffer("_powers", torch.from_numpy(weights), persistent=False)

    def signs(self, vectors: Tensor) -> Tensor:
        """(..., width) -> (..., bits) bool."""
        return vectors.detach() @ self.projections > 0

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., width) -> (...) codes as integers; no gradient."""
        powers: Tensor = self.get_buffer("_powers")
        packed = (self.signs(vectors).long() * powers).sum(-1)
        return packed.int() if self.bits <= 32 else packed  # the 32nd sign becomes that of the integer


def popcount(values: Tensor) -> Tensor:
    """(...) bits that are set in 32- or 64-bit integers, int32: one machine instruction a word on a processor."""
    if values.device.type == "cpu":
        words = values.numpy().view(np.uint32 if values.dtype == torch.int32 else np.uint64)
        return torch.from_numpy(np.asarray(np.bitwise_count(words), np.int32))
    return count_by_shifts(values)


def count_by_shifts(values: Tensor) -> Tensor:
    """`popcount` where there is no such instruction: bits are added in pairs, in fours, in bytes, and the bytes."""
    if values.dtype == torch.int32:
        values = values.long() & 0xFFFFFFFF
    values = values - ((values >> 1) & 0x5555555555555555)
    values = (values & 0x3333333333333333) + ((values >> 2) & 0x3333333333333333)
    values = (values + (values >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((values * 0x0101010101010101) >> 56).int()


def agreement(codes: Tensor, others: Tensor, bits: int) -> Tensor:
    """Bits in which codes agree, int32, by broadcasting: `bits` minus the Hamming distance."""
    if codes.device.type == "cpu":
        return bits - popcount(torch.from_numpy(np.asarray(codes.numpy() ^ others.numpy())))
    return bits - popcount(codes ^ others)


class GroupedHash(nn.Module):
    """SimHash in groups of `group` bits, one bucket number a group: what collides for SDIM.

    Vectors at an angle of `a` share the bucket of a group with probability (1 - a / pi) ** group.
    """

    def __init__(self, width: int, bits: int, group: int) -> None:
        super().__init__()
        self.groups, self.buckets = bits // group, 2**group
        self.group = group
        self.register_buffer("projections", torch.randn(width, self.groups * group))
        self.register_buffer("_powers", 2 ** torch.arange(group), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., width) -> (..., groups) bucket numbers below 2 ** group, int64; no gradient."""
        signs = vectors.detach() @ self.get_buffer("projections") > 0
        powers: Tensor = self.get_buffer("_powers")
        return (signs.reshape(*signs.shape[:-1], self.groups, self.group).long() * powers).sum(-1)
