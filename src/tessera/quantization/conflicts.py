"""Items with the same codes: left so, told apart by one more code, or moved to another code of the last level.

Items that share a code string cannot be told apart by a recommender that generates codes. Where codes are inputs alone,
collisions do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from tessera.artifacts.logs import log
from tessera.settings.quantizers.base import Conflicts

Ints = NDArray[np.int64]
Distances = Callable[[Ints], np.ndarray] | np.ndarray
"""(n, codes of the last level) squared distances of every row to them, or a function that gives those of some rows."""

EPSILON = 0.003
"""Entropy weight of the transport, of distances scaled to -1..1 (LC-Rec)."""
ITERATIONS = 50
"""Normalisations of rows and columns."""
ROUNDS = 20
"""How often colliding items are moved before what is left is assigned."""


@dataclass(frozen=True)
class Resolved:
    """Codes after the collisions were dealt with."""

    codes: Ints
    """(n, levels), or (n, levels + 1) with the level that tells items apart."""
    sizes: tuple[int, ...]
    """Codes to choose from, a level each."""
    before: int
    """Items less different code strings, as the quantiser left them."""
    after: int
    """The same of `codes`."""
    moved: int
    """Items whose code of the last level is another than the quantiser's."""
    extra: bool
    """Whether the last level was added to tell items apart."""


def strings(codes: np.ndarray) -> Ints:
    """(n,) the number of each row among the different rows of (n, levels), sorted by the first code, then the next.

    Level after level, so that no number outgrows 64 bits whatever the sizes are.
    """
    numbers = np.zeros(len(codes), np.int64)
    for column in np.asarray(codes, np.int64).T:
        span = int(column.max(initial=0)) + 1
        numbers = np.unique(numbers * span + column, return_inverse=True)[1].reshape(-1)
    return numbers


def collisions(codes: np.ndarray) -> int:
    """Rows of (n, levels) less different rows."""
    return len(codes) - len(np.unique(strings(codes)))


def resolve(strategy: Conflicts, codes: Ints, distances: Distances | None, sizes: Sequence[int]) -> Resolved:
    """Deal with items that share their codes.

    - none: they keep them.
    - extra_level (TIGER, section 3.1): one more code, the place of the item among those that share its codes, by the
      order of the rows. The level is as large as the largest group, and is there even if no two items collide.
    - nearest: the items of every prefix that holds a collision are assigned anew to different codes of the last level,
      with the least sum of squared distances (exact, Hungarian method). Prefixes without a collision stay as they are.
    - sinkhorn (LC-Rec): every group of colliding items is spread over the last level by entropic optimal
      transport with equal shares for all codes, for at most `ROUNDS` rounds and while that helps; what still collides
      then, such as exact copies, is assigned as under `nearest`.

    Args:
        codes: (n, levels) of the items that have codes, by ascending item id.
        distances: needed by `nearest` and `sinkhorn`.
        sizes: codes to choose from, a level each.
    Raises:
        ValueError: more items share a prefix than the last level has codes, or a distance is not finite.
    """
    codes = np.asarray(codes, np.int64)
    sizes = tuple(sizes)
    before = collisions(codes)
    if strategy == "none":
        return Resolved(codes, sizes, before, before, 0, extra=False)
    if strategy == "extra_level":
        place = _place_in_group(strings(codes))
        largest = int(place.max(initial=0)) + 1
        if largest > max(sizes):
            log.info("%d items share their codes: more codes or levels would tell most of them apart", largest)
        return Resolved(np.column_stack([codes, place]), (*sizes, largest), before, 0, 0, extra=True)
    if distances is None:
        raise ValueError(f"conflicts: {strategy!r} needs distances to the codes of the last level")
    resolved = codes.copy()
    prefixes = strings(codes[:, :-1])
    _check_room(prefixes, codes, sizes)
    if strategy == "sinkhorn":
        _spread(resolved, distances)
    _assign(resolved, prefixes, distances)
    moved = int((resolved != codes).any(1).sum())
    return Resolved(resolved, sizes, before, collisions(resolved), moved, extra=False)


def _place_in_group(groups: Ints) -> Ints:
    """(n,) how many rows of the same group stand before each."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def _groups(labels: Ints, chosen: NDArray[np.bool_]) -> list[Ints]:
    """Rows of each group that is chosen, (groups,) by label."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    starts = np.append(0, ends[:-1])
    return [order[starts[label] : ends[label]] for label in np.flatnonzero(chosen)]


def _check_room(prefixes: Ints, codes: Ints, sizes: tuple[int, ...]) -> None:
    counts = np.bincount(prefixes)
    full = int(counts.argmax()) if len(counts) else 0
    if len(counts) and counts[full] > sizes[-1]:
        prefix = codes[np.flatnonzero(prefixes == full)[0], :-1].tolist()
        share = f"share the codes {prefix} before the last level, whose" if prefix else "have one level, whose"
        raise ValueError(
            f"conflicts: {counts[full]} items {share} {sizes[-1]} codes cannot tell them apart; more codes, one more "
            "level, or conflicts: extra_level leaves room (the last alone where the items are copies of one another)"
        )


def _some(distances: Distances, rows: Ints) -> NDArray[np.float64]:
    chosen = np.asarray(distances(rows) if callable(distances) else distances[rows], np.float64)
    if not np.isfinite(chosen).all():
        bad = int(rows[np.flatnonzero(~np.isfinite(chosen).all(1))[0]])
        raise ValueError(f"conflicts: row {bad} has a distance to a code that is NaN or infinite")
    return chosen


def _colliding(codes: Ints) -> list[Ints]:
    """Rows of each group that shares its codes."""
    labels = strings(codes)
    return _groups(labels, np.bincount(labels) > 1)


def _assign(codes: Ints, prefixes: Ints, distances: Distances) -> None:
    """Different last codes within each prefix that holds a collision, at the least sum of distances; in place."""
    collided = np.zeros(int(prefixes.max(initial=-1)) + 1, bool)
    for rows in _colliding(codes):
        collided[prefixes[rows[0]]] = True
    for rows in _groups(prefixes, collided):
        codes[rows, -1] = linear_sum_assignment(_some(distances, rows))[1]


def _spread(codes: Ints, distances: Distances) -> None:
    """Colliding items over the last level by optimal transport, round after round; in place.

    Exact copies want the same code in every round, and may push others to and fro: it ends where a round leaves no
    fewer groups than the best before it.
    """
    fewest = len(codes) + 1
    for _ in range(ROUNDS):
        groups = _colliding(codes)
        if not groups or len(groups) >= fewest:
            return
        fewest = len(groups)
        for rows in groups:
            codes[rows, -1] = transport(_some(distances, rows)).argmax(1)


def transport(distances: np.ndarray, epsilon: float = EPSILON, iterations: int = ITERATIONS) -> NDArray[np.float64]:
    """(n, codes) logarithms of the entropic transport of n rows, one each, to codes with equal shares.

    Sinkhorn's algorithm on distances that are scaled to -1..1, as in LC-Rec, in logarithms: exp(-1 / 0.003) is no
    number of 32 bits.
    """
    low, high = distances.min(), distances.max()
    middle = (low + high) / 2
    plan: NDArray[np.float64] = -(distances - middle) / ((high - middle) + 1e-5) / epsilon
    rows, codes = plan.shape
    for _ in range(iterations):
        plan = plan - logsumexp(plan, axis=1, keepdims=True)
        plan = plan - logsumexp(plan, axis=0, keepdims=True) + np.log(rows / codes)
    return plan
