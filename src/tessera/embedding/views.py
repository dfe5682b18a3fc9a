"""Two views of an item: its attributes shuffled twice, each time with some left out (LLMEmb and ReaEmb)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Attributes = Sequence[tuple[str, str]]

# an item with one attribute has only one view; the published code looks for another for ever
TRIES = 10


def view(attributes: Attributes, drop: float, generator: np.random.Generator) -> list[tuple[str, str]]:
    """The attributes in a random order without floor(drop x number) of them; one at least is left."""
    kept = len(attributes) - int(drop * len(attributes))
    return [attributes[place] for place in generator.permutation(len(attributes))[:kept]]


def two_views(
    attributes: Attributes, drop: float, seed: int, step: int, item: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Two views that differ, if they can.

    Args:
        attributes: (name, value) pairs.
        drop: share to leave out of each view, below 1.
        seed: of the training.
        step: another number gives other views; the same one always gives the same.
        item: its id.
    """
    generator = np.random.default_rng((seed, step, item))
    first = second = view(attributes, drop, generator)
    for _ in range(TRIES):
        second = view(attributes, drop, generator)
        if second != first:
            break
    return first, second
