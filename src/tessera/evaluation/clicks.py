"""Metrics of predicted click probabilities, and their bootstrap over users. All take and give numpy arrays.

AUC counts ties as half (Fawcett 2006, section 7). GAUC is the mean of users' own AUCs, weighted by their impressions;
users with one class have none (Zhu et al., KDD 2017). ECE with bins of equal width: Naeini et al., AAAI 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix

Array = NDArray[np.float64]

CLIP = 1e-7
"""Probabilities are kept so far from 0 and 1 in the log loss."""
_CELLS = 4_000_000
"""Numbers of a table at a time: memory does not grow with the number of resamples."""
_PAIRED_USERS = 4000
"""Most users whose pairs are counted: their table takes 128 MB."""
METRICS = ("AUC", "GAUC", "log loss", "ECE")


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Probability that a click scores above a non-click; None without both classes."""
    areas = weighted_auc(labels, scores, np.ones((1, len(labels))))
    return None if np.isnan(areas[0]) else float(areas[0])


def weighted_auc(labels: np.ndarray, scores: np.ndarray, weights: Array) -> Array:
    """AUC under several weightings of the same impressions, from one sort.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,) any order-preserving score.
        weights: (resamples, n) how often each impression counts.
    Returns:
        (resamples,), NaN where a class is missing.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-np.inf)) if len(ordered) else np.zeros(0, np.int64)
    if not len(first):
        return np.full(len(weights), np.nan)
    sorted_weights = weights[:, order]
    clicked = labels[order] > 0
    # by tied group: clicks, and non-clicks
    clicks = np.add.reduceat(sorted_weights * clicked, first, axis=1)
    others = np.add.reduceat(sorted_weights * ~clicked, first, axis=1)
    below = np.cumsum(others, axis=1) - others
    total = clicks.sum(1) * others.sum(1)
    won = (clicks * (below + 0.5 * others)).sum(1)
    return np.asarray(np.divide(won, total, out=np.full(len(weights), np.nan), where=total > 0))


def user_wins(labels: np.ndarray, scores: np.ndarray, users: np.ndarray, count: int) -> Array:
    """(count, count) how often a click of one user scores above a non-click of another; ties count half.

    Where users are weighted by w, the pairs that clicks win are w' W w: a resample of users costs no pass over the
    impressions.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,) any order-preserving score.
        users: (n,) from 0 to `count` - 1.
        count: how many users there are.
    """
    _, ranks = np.unique(scores, return_inverse=True)
    groups = int(ranks.max(initial=-1)) + 1
    clicked = labels > 0
    ones = np.ones(len(labels))
    clicks = coo_matrix((ones[clicked], (users[clicked], ranks[clicked])), (count, groups)).tocsr()
    others = coo_matrix((ones[~clicked], (ranks[~clicked], users[~clicked])), (groups, count)).tocsc()
    wins = np.zeros((count, count))
    size = max(1, _CELLS // max(1, groups))
    for start in range(0, count, size):
        own = others[:, start : start + size].toarray()
        wins[:, start : start + size] = clicks @ (np.cumsum(own, axis=0) - 0.5 * own)
    return wins


def auc_of_draws(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray, count: int, resamples: int
) -> Callable[[Array], Array]:
    """What gives the AUC of resamples of users: of draws (any number, users), NaN where a class is missing.

    Args:
        labels: (n,) 0 or 1.
        scores: (n,) any order-preserving score.
        users: (n,) from 0.
        count: how many users there are.
        resamples: how many draws there will be; it decides which of two ways to the same numbers is taken.
    """
    if count > min(resamples, _PAIRED_USERS):  # the pairs of users cost more than so many passes

        def by_passes(draws: Array) -> Array:
            size = max(1, _CELLS // max(1, len(labels)))
            parts = (draws[start : start + size][:, users] for start in range(0, len(draws), size))
            return np.concatenate([weighted_auc(labels, scores, part) for part in parts])

        return by_passes
    wins = user_wins(labels, scores, users, count)
    clicks = np.bincount(users, labels > 0, count)
    others = np.bincount(users, minlength=count) - clicks

    def by_pairs(draws: Array) -> Array:
        won = ((draws @ wins) * draws).sum(1)
        total = (draws @ clicks) * (draws @ others)
        return np.asarray(np.divide(won, total, out=np.full(len(draws), np.nan), where=total > 0))

    return by_pairs


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> Array:
    """(n,) negative log-likelihood of each impression."""
    clipped = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    return np.asarray(-np.where(labels > 0, np.log(clipped), np.log1p(-clipped)))


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> list[tuple[float, float, int]]:
    """(mean prediction, share of clicks, impressions) of each bin of equal width that is not empty."""
    numbers = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    counts = np.bincount(numbers, minlength=bins)
    predicted = np.bincount(numbers, probabilities.astype(np.float64), bins)
    clicked = np.bincount(numbers, labels.astype(np.float64), bins)
    return [
        (float(predicted[b] / counts[b]), float(clicked[b] / counts[b]), int(counts[b])) for b in np.flatnonzero(counts)
    ]


def ece(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """Expected calibration error: mean distance of prediction and share of clicks, weighted by impressions."""
    points = calibration(labels, probabilities, bins)
    return sum(abs(p - c) * n for p, c, n in points) / max(1, sum(n for _, _, n in points))


@dataclass(frozen=True)
class ByUser:
    """What the bootstrap needs of each user."""

    users: NDArray[np.int64]
    """(users,) ascending."""
    inverse: NDArray[np.int64]
    """(n,) which of them an impression belongs to."""
    impressions: Array
    auc: Array
    """Each user's own, NaN with one class."""
    loss: Array
    """Sum of each user's log losses."""


def _user_aucs(labels: np.ndarray, scores: np.ndarray, users: np.ndarray, count: int) -> Array:
    """(count,) the AUC of every user, from one sort; NaN with one class."""
    if not len(labels):
        return np.full(count, np.nan)
    order = np.lexsort((scores, users))
    of, ordered, clicked = users[order], scores[order], labels[order] > 0
    first = np.flatnonzero(np.append(True, (of[1:] != of[:-1]) | (ordered[1:] != ordered[:-1])))
    # by tied group of a user: clicks, and non-clicks
    clicks, others = (np.add.reduceat(kind.astype(np.float64), first) for kind in (clicked, ~clicked))
    user = of[first]
    before = np.cumsum(others) - others
    below = before - before[np.searchsorted(user, user)]
    won = np.bincount(user, clicks * (below + 0.5 * others), count)
    total = np.bincount(user, clicks, count) * np.bincount(user, others, count)
    return np.asarray(np.divide(won, total, out=np.full(count, np.nan), where=total > 0))


def by_user(users: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> ByUser:
    """Counts, AUC and log loss of each user."""
    known, inverse = np.unique(users, return_inverse=True)
    own = _user_aucs(labels, probabilities, inverse, len(known))
    losses = np.bincount(inverse, log_losses(labels, probabilities), len(known))
    return ByUser(
        known.astype(np.int64),
        inverse,
        np.bincount(inverse, minlength=len(known)).astype(np.float64),
        own,
        np.asarray(losses, np.float64),
    )


def gauc(per_user: ByUser) -> float | None:
    """Impression-weighted mean of the users' AUCs; None where no user has both classes."""
    fits = ~np.isnan(per_user.auc)
    if not fits.any():
        return None
    return float(np.average(per_user.auc[fits], weights=per_user.impressions[fits]))


def summarize(users: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, float | None]:
    """All metrics of some impressions; those that one class leaves undefined are None."""
    return {
        "AUC": auc(labels, probabilities),
        "GAUC": gauc(by_user(users, labels, probabilities)),
        "log loss": float(log_losses(labels, probabilities).mean()),
        "ECE": ece(labels, probabilities, bins),
    }


LEAST_USERS = 10
"""Fewest users of which resamples tell anything."""


def user_draws(users: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each user is drawn, with replacement, in blocks (some resamples, users)."""
    generator = np.random.default_rng(seed)
    # products of matrices take rows a few at a time: in blocks of eights, none of fewer, every row comes out as if all
    # came at once, to the last bit
    size = max(8, _CELLS // users // 8 * 8)
    starts = range(0, max(resamples - 7, 1), size)
    for start, end in pairwise([*starts, resamples]):
        drawn = np.empty((end - start, users))
        for row in range(len(drawn)):
            drawn[row] = np.bincount(generator.integers(0, users, users), minlength=users)
        yield drawn


def resampled(
    users: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, resamples: int, seed: int
) -> Mapping[str, Array]:
    """AUC, GAUC and log loss of each bootstrap resample of users, (resamples,) each.

    The same users, resamples and seed draw the same users, so differences between models are paired. Of too few users
    resamples are alike and would make any difference significant: all are NaN then.
    """
    per_user = by_user(users, labels, probabilities)
    if len(per_user.users) < LEAST_USERS:
        return dict.fromkeys(("AUC", "GAUC", "log loss"), np.full(resamples, np.nan))
    auc_of = auc_of_draws(labels, probabilities, per_user.inverse, len(per_user.users), resamples)
    fits = ~np.isnan(per_user.auc)
    metrics: dict[str, list[Array]] = {"AUC": [], "GAUC": [], "log loss": []}
    for draws in user_draws(len(per_user.users), resamples, seed):
        metrics["AUC"].append(auc_of(draws))
        with_both = draws[:, fits]
        weight = with_both @ per_user.impressions[fits]
        own = with_both @ (per_user.auc[fits] * per_user.impressions[fits])
        metrics["GAUC"].append(np.divide(own, weight, out=np.full(len(draws), np.nan), where=weight > 0))
        metrics["log loss"].append((draws @ per_user.loss) / (draws @ per_user.impressions))
    return {metric: np.concatenate(parts) for metric, parts in metrics.items()}


def interval(values: Array, level: float) -> tuple[float, float] | None:
    """The percentile interval of resamples, NaN left out; None where nothing is left."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return None
    low, high = np.quantile(kept, [level / 2, 1 - level / 2])
    return float(low), float(high)


def paired_p(differences: Array, observed: float) -> float:
    """Two-sided p of a paired bootstrap: resampled differences, shifted to the null, that lie as far from 0."""
    kept = differences[~np.isnan(differences)]
    if not len(kept) or math.isnan(observed):
        return 1.0
    extreme = int((np.abs(kept - observed) >= abs(observed) - 1e-12).sum())
    return (1 + extreme) / (1 + len(kept))
