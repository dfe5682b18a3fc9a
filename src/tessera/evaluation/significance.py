"""Is a difference between two systems more than chance over users?

Paired tests on per-user differences, against one baseline, and Holm's correction over every comparison of a table.
All tests take `differences (users, comparisons)`: the columns share their resamples, so a table of a hundred
comparisons costs one matrix product per chunk of resamples. Memory is bounded by the chunk.

Randomisation and bootstrap over users: Smucker, Allan and Carterette, CIKM 2007; Sakai, SIGIR 2006. p-values of
resampling tests count the observed sample itself, so they are never 0 (Phipson and Smyth 2010). Correction: Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tessera.settings.evaluation import Significance

Array = NDArray[np.float64]

_CHUNK_VALUES = 4_000_000
"""Random signs (a byte each) or counts (8 bytes each) held at once."""

_BLOCK_USERS = 2048
_PAIR_VALUES = 20_000_000
"""Differences of pairs of systems held at once."""
_ROUNDING = 1e-12
"""A difference below this is none: means over three seeds and over one, of equal values, differ in the last bit."""
LEAST_USERS = 10
"""Of fewer users resamples and a t-test tell of chance as if it were a difference; all sign patterns are counted."""


def _checked(differences: Array) -> Array:
    values = np.asarray(differences, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(
            f"differences have the shape {np.shape(differences)}, expected (users, comparisons), users > 0"
        )
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"difference of user row {row}, comparison {column} is {values[row, column]}, expected a number"
        )
    return np.where(np.abs(values) < _ROUNDING, 0.0, values)


def _chunks(resamples: int, users: int) -> Iterator[int]:
    size = max(1, min(resamples, _CHUNK_VALUES // users))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _pieces(rows: int, comparisons: int) -> Iterator[slice]:
    """Rows of a chunk whose statistics are held at once."""
    size = max(1, _CHUNK_VALUES // comparisons)
    yield from (slice(start, start + size) for start in range(0, rows, size))


def _product(weights: NDArray[np.integer], values: Array) -> Array:
    """(chunk, users) @ (users, comparisons), in blocks of users that stay in the cache."""
    total = np.zeros((len(weights), values.shape[1]))
    for start in range(0, len(values), _BLOCK_USERS):
        block = slice(start, start + _BLOCK_USERS)
        total += weights[:, block].astype(np.float64) @ values[block]
    return total


def _extreme(statistics: Array, observed: Array) -> NDArray[np.int64]:
    """How many rows of `statistics` (resamples, comparisons) lie as far from 0 as `observed`, up to rounding."""
    slack = np.maximum(1e-9 * np.abs(observed), 10 * _ROUNDING)
    return np.asarray((np.abs(statistics) >= np.abs(observed) - slack).sum(0), np.int64)


def randomization(differences: Array, resamples: int = 10_000, seed: int = 0) -> Array:
    """Two-sided paired randomisation test: under the null the sign of a user's difference is a fair coin.

    With fewer than ten users, or so few that all sign patterns are fewer than `resamples`, all are enumerated and p is
    exact.

    Args:
        differences: (users, comparisons) or (users,), system minus baseline.
    Returns:
        p (comparisons,)
    """
    values = _checked(differences)
    users = len(values)
    observed = values.sum(0)
    if _enumerated(users, resamples):
        patterns = (np.arange(2**users)[:, None] >> np.arange(users)) & 1
        pieces = _pieces(len(patterns), values.shape[1])
        counts = sum(_extreme((1.0 - 2.0 * patterns[piece]) @ values, observed) for piece in pieces)
        return np.asarray(counts / 2**users, np.float64)
    generator = np.random.default_rng(seed)
    extreme = np.zeros(values.shape[1], np.int64)
    for size in _chunks(resamples, users):
        bits = np.frombuffer(generator.bytes(size * math.ceil(users / 8)), np.uint8).reshape(size, -1)
        flipped = np.unpackbits(bits, axis=1, count=users)
        # sum of signs * d = sum of d - 2 * (sum of the flipped d)
        for piece in _pieces(size, values.shape[1]):
            extreme += _extreme(observed - 2.0 * _product(flipped[piece], values), observed)
    return (1 + extreme) / (1 + resamples)


def _enumerated(users: int, resamples: int) -> bool:
    return users < LEAST_USERS or (users < 60 and 2**users <= resamples)


def bootstrap(differences: Array, resamples: int = 10_000, seed: int = 0) -> Array:
    """Two-sided paired bootstrap test: users drawn with replacement, the distribution shifted to the null.

    Args:
        differences: (users, comparisons) or (users,), system minus baseline.
    Returns:
        p (comparisons,)
    """
    values = _checked(differences)
    observed = values.sum(0)
    extreme = np.zeros(values.shape[1], np.int64)
    for sums in _bootstrap_sums(values, resamples, seed):
        extreme += _extreme(sums - observed, observed)
    return (1 + extreme) / (1 + resamples)


def _bootstrap_sums(values: Array, resamples: int, seed: int) -> Iterator[Array]:
    """(piece, comparisons) sums over users drawn with replacement."""
    users = len(values)
    generator = np.random.default_rng(seed)
    for size in _chunks(resamples, users):
        drawn = generator.integers(0, users, (size, users))
        drawn += np.arange(size)[:, None] * users
        counts = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        yield from (_product(counts[piece], values) for piece in _pieces(size, values.shape[1]))


def bootstrap_interval(differences: Array, level: float, resamples: int = 10_000, seed: int = 0) -> tuple[Array, Array]:
    """Percentile interval of the mean difference: users drawn with replacement, the two systems of each together.

    Args:
        differences: (users, comparisons) or (users,), one system minus the other.
        level: the share of resamples that lie outside.
    Returns:
        lower and upper ends, (comparisons,) each.
    """
    values = _checked(differences)
    means = np.concatenate([sums / len(values) for sums in _bootstrap_sums(values, resamples, seed)])
    low, high = np.quantile(means, [level / 2, 1 - level / 2], axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def detectable(differences: Array, level: float, power: float = 0.8) -> Array:
    """The smallest mean difference that a two-sided test at `level` sees with so much power.

    With s the standard deviation of the differences over users, the standard error is s / sqrt(users).

    Args:
        differences: (users, comparisons) or (users,), one system minus the other; at least two users.
    Returns:
        (comparisons,)
    """
    values = _checked(differences)
    error = values.std(0, ddof=1) / math.sqrt(len(values))
    return np.asarray(error * smallest_effect(1.0, level, power), np.float64)


def can_reach_level(settings: Significance, comparisons: int, users: int) -> bool:
    """Whether a test of so many users could tell any difference, after Holm's correction of so many comparisons.

    Of few users all patterns of signs are counted: of five, two in 32 are as extreme as the most extreme one.
    """
    if _method(settings, users) != "randomization" or not _enumerated(users, enough_resamples(settings, comparisons)):
        return True
    return comparisons * 2.0 ** (1 - users) <= settings.level


def enough_differ(differences: Array, distance: float) -> bool:
    """Whether users are enough to compare the mean of their differences with `distance`, which is not 0.

    A test of it takes the differences less the distance. Users who differ in nothing then all lie on one side, as if
    they were evidence, though the few who decide are not among them yet. So either ten users differ, or a mean of this
    size would need at least ten, since no metric is above 1.

    Args:
        differences: (users,), one system minus the other.
    """
    values = _checked(differences)
    return len(values) * abs(distance) >= LEAST_USERS or int(np.count_nonzero(values)) >= LEAST_USERS


def smallest_effect(error: float, level: float, power: float = 0.8) -> float:
    """The smallest difference of this standard error that a two-sided test at `level` sees with so much power.

    (z(1 - level / 2) + z(power)) error, where z is the normal quantile.
    """
    from scipy.special import ndtri

    return float(ndtri(1 - level / 2) + ndtri(power)) * error


def t_test(differences: Array) -> Array:
    """Two-sided paired t-test. Without any variation, p is 1 for a difference of 0 and 0 otherwise.

    Args:
        differences: (users, comparisons) or (users,), system minus baseline.
    Returns:
        p (comparisons,)
    Raises:
        ValueError: fewer than two users.
    """
    from scipy.special import stdtr

    values = _checked(differences)
    users = len(values)
    if users < 2:
        raise ValueError("a t-test needs at least 2 users, found 1")
    mean = values.mean(0)
    error = values.std(0, ddof=1) / math.sqrt(users)
    # a constant column has a deviation of rounding size, not of exactly 0
    varies = error > 1e-12 * np.abs(mean)
    t = np.divide(mean, error, out=np.where(mean == 0, 0.0, np.inf), where=varies & (error > 0))
    return np.asarray(2.0 * stdtr(users - 1, -np.abs(t)), np.float64)


def holm(p: Array) -> Array:
    """Holm's step-down correction: reject where the result is at most the level, and the family-wise error holds.

    Args:
        p: (comparisons,) of one family.
    Returns:
        corrected p (comparisons,), in the order given.
    """
    p = np.asarray(p, np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie in [0, 1], found {p[~((p >= 0) & (p <= 1))][0]}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def enough_resamples(settings: Significance, comparisons: int) -> int:
    """The configured resamples, or more where Holm's correction over so many comparisons could never reach the level.

    The least p of a resampling test is 1 / (1 + resamples); corrected it is `comparisons` times that. Twice the
    resamples that this needs are taken.
    """
    return max(settings.resamples, math.ceil(2 * comparisons / settings.level))


def least_p(settings: Significance, comparisons: int, users: int) -> float:
    """The least p that the resamples can tell, after Holm's correction of so many comparisons; 0 of exact tests.

    A p there says that no resample was as extreme: the true one may be any smaller.
    """
    resamples = enough_resamples(settings, comparisons)
    method = _method(settings, users)
    if method == "t_test" or (method == "randomization" and _enumerated(users, resamples)):
        return 0.0
    return min(1.0, comparisons / (1 + resamples))


def told_p(p: float, least: float) -> str:
    """A p as it is printed: `p = 0.031`, or `p ≤ 0.0144` where the resamples can tell no less."""
    if p > least * (1 + 1e-9):
        shown = float(f"{p:.3g}")
        if shown < p and shown == float(f"{p:.2g}"):  # above a level such as 0.025, it must not seem to be within it
            shown = _up(p)
        # rounded, it must not seem to be what could not be told
        return f"p = {max(shown, _up(least)):.3g}"
    return f"p ≤ {_up(least):.3g}" if least else "p < 1e-300"


def _up(value: float) -> float:
    """A number in three digits, none below it."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step - 1e-9) * step:.3g}")


def _method(settings: Significance, users: int) -> str:
    """The configured test, or that by signs where users are too few for the others."""
    return "randomization" if users < LEAST_USERS else settings.method


def p_values(differences: Array, settings: Significance, comparisons: int | None = None) -> Array:
    """Uncorrected p-values by the configured method; of fewer than ten users by randomisation.

    Args:
        differences: (users, comparisons), system minus baseline.
        comparisons: size of the whole family, when `differences` holds only a part of it.
    """
    values = _checked(differences)
    method = _method(settings, len(values))
    if method == "t_test":
        return t_test(values)
    resamples = enough_resamples(settings, comparisons or values.shape[1])
    test = randomization if method == "randomization" else bootstrap
    return test(values, resamples, settings.seed)


def bootstrap_ratio_interval(
    values: Array, others: Array, level: float, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the relative gain mean(values) / mean(others) - 1; users are drawn with replacement.

    Args:
        values: (users,) of one system.
        others: (users,) of the other, of the same users: each is drawn with both of its values.
        level: the share of resamples that lie outside.
    Returns:
        lower and upper end; None where some resample of `others` has the mean 0, so that no ratio is known.
    """
    both = _checked(np.stack([values, others], axis=1))
    sums = np.concatenate(list(_bootstrap_sums(both, resamples, seed)))
    if (sums[:, 1] <= 0).any():
        return None
    low, high = np.quantile(sums[:, 0] / sums[:, 1] - 1, [level / 2, 1 - level / 2])
    return float(low), float(high)


def pairwise(values: Array, settings: Significance) -> Array:
    """Corrected p-values of every pair of systems, all pairs one family of Holm's correction.

    Args:
        values: (users, systems), at least two of each.
    Returns:
        (systems, systems), symmetric, with ones on the diagonal.
    """
    systems = values.shape[1]
    first, second = np.triu_indices(systems, 1)
    p = np.ones(len(first))
    # as many pairs share their resamples as fit into memory
    size = max(1, _PAIR_VALUES // len(values))
    for start in range(0, len(first), size):
        block = slice(start, start + size)
        p[block] = p_values(values[:, first[block]] - values[:, second[block]], settings, len(first))
    matrix = np.ones((systems, systems))
    matrix[first, second] = matrix[second, first] = holm(p)
    return matrix
