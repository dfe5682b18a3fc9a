"""Co-occurrence against a count of all pairs of positions."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from tessera.data.cooccurrence import cooccurrence, meetings


def histories(seed: int, users: int = 40, items: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, users)
    return np.concatenate([[0], np.cumsum(lengths)]), rng.integers(1, items + 1, lengths.sum()).astype(np.int32)


@pytest.mark.parametrize("most", [None, 3])
def test_pairs_of_positions_are_counted(most: int | None) -> None:
    offsets, items = histories(3)
    counted: Counter[tuple[int, int]] = Counter()
    for start, end in pairwise(offsets):
        history = items[start:end] if most is None else items[start:end][-most:]
        for a, b in combinations(history.tolist(), 2):
            if a != b:
                counted[a, b] += 1
                counted[b, a] += 1
    found = cooccurrence(offsets, items, 12, most)
    wanted = np.zeros((13, 13), np.int64)
    for pair, count in counted.items():
        wanted[pair] = count
    assert (found.toarray() == wanted).all()
    assert found.nnz == len(counted)
    assert wanted.max() > 2  # repeats and several users are really there


def test_no_history_gives_no_pair() -> None:
    assert cooccurrence(np.zeros(5, np.int64), np.empty(0, np.int32), 3).nnz == 0
    assert cooccurrence(np.array([0, 3]), np.array([2, 2, 2]), 3).nnz == 0


def test_meetings_count_repeats() -> None:
    found = meetings(np.array([0, 3, 4]), np.array([1, 2, 1, 3]), 3)
    assert found.toarray().tolist() == [[0, 2, 1, 0], [0, 0, 0, 1]]
