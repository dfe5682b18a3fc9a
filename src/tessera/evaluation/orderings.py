"""Does a user's history keep its order of nearness when items get other vectors? Kendall's tau of distances.

MME-SID (CIKM 2025) measures with it what quantisation, or training after it, forgets of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tessera.data.dataset import Dataset
from tessera.data.directions import unit_rows

USERS = 2000
"""Users that are looked at, at most."""
MOST = 200
"""Items of a history that are compared, the latest ones: pairs grow with the square."""
RESAMPLES = 1000

Ints = NDArray[np.int64]
Case = tuple[int, Ints]
"""A target and the different items of the history before it."""


def training_cases(dataset: Dataset, present: NDArray[np.bool_], users: int = USERS, seed: int = 0) -> list[Case]:
    """The last training item of a user and what it took before, repeats and the target itself left out.

    Args:
        present: (items + 1,) which items have vectors; others are left out.
        users: how many are drawn of those with two items or more before the target.
    """
    offsets, items = dataset.train_histories()
    cases: list[Case] = []
    for user in np.random.default_rng(seed).permutation(len(offsets) - 1):
        history = items[offsets[user] : offsets[user + 1]].astype(np.int64)
        if len(history) < 3 or not present[history[-1]]:
            continue
        latest_first = history[-2::-1]
        latest_first = latest_first[np.sort(np.unique(latest_first, return_index=True)[1])]
        kept = latest_first[present[latest_first] & (latest_first != history[-1])][:MOST]
        if len(kept) > 1:
            cases.append((int(history[-1]), kept))
            if len(cases) == users:
                break
    return cases


def kendall(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Tau-a, tau-b and the tie rate of two rows of distances (n,), n > 1.

    Tau-a is (concordant - discordant) / pairs, where tied pairs are neither; tau-b is corrected for ties and NaN where
    a row is constant; the tie rate is the share of pairs that are tied in `second` but not in `first`.
    """
    upper = np.triu_indices(len(first), 1)
    signs = [np.sign(row[upper[0]] - row[upper[1]]) for row in (first, second)]
    agreement = float((signs[0] * signs[1]).sum())
    untied = [float(np.abs(sign).sum()) for sign in signs]
    scale = np.sqrt(untied[0] * untied[1])
    ties = float(((signs[1] == 0) & (signs[0] != 0)).mean())
    return agreement / len(upper[0]), agreement / scale if scale else float("nan"), ties


def order_agreement(
    cases: Sequence[Case],
    reference: np.ndarray,
    tested: np.ndarray,
    distance: Literal["euclidean", "cosine"] = "euclidean",
    seed: int = 0,
) -> dict[str, Any] | None:
    """How far the distances from targets to their histories keep their order; None without users.

    Args:
        reference: (items + 1, dim) vectors as they were.
        tested: (items + 1, any dim) vectors of the same items.
    Returns:
        `users`; means over users of `tau_a`, `tau_b` (of users where it is defined) and `tie_rate`; and for both taus
        `..._error`, the standard error over bootstrap samples of users. None where nobody has a tau-b.
    """
    if not cases:
        return None
    rows = np.array(
        [
            kendall(*(_distances(vectors, target, history, distance) for vectors in (reference, tested)))
            for target, history in cases
        ]
    )
    summary: dict[str, Any] = {"users": len(rows), "tie_rate": float(rows[:, 2].mean())}
    rng = np.random.default_rng(seed)
    for name, values in (("tau_a", rows[:, 0]), ("tau_b", rows[:, 1])):
        known = values[~np.isnan(values)]
        summary[name] = float(known.mean()) if len(known) else None
        means = [known[rng.integers(0, len(known), len(known))].mean() for _ in range(RESAMPLES)] if len(known) else []
        summary[f"{name}_error"] = float(np.std(means, ddof=1)) if len(known) > 1 else None
    return summary


def _distances(vectors: np.ndarray, target: int, history: Ints, distance: str) -> NDArray[np.float64]:
    """(n,) of each item to the target. Differences and not a Gram matrix: items with equal vectors must tie exactly."""
    rows = vectors[np.append(history, target)].astype(np.float64)
    if distance == "cosine":
        rows = unit_rows(rows)
    distances: NDArray[np.float64] = np.square(rows[:-1] - rows[-1]).sum(1)
    return distances
