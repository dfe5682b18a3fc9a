"""Which of many are looked at: some at even distances, so that no end of an order is left out."""

from __future__ import annotations


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` positions spread evenly over `count`."""
    wanted = min(count, wanted)
    return [int((number + 0.5) * count / wanted) for number in range(wanted)]
