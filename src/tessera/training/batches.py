"""Histories in windows, windows in batches: no target lost, little padding, the same order for the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tessera.data.padding import padded


def windows(offsets: np.ndarray, size: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut every history into windows of at most `size` items, from its end backwards.

    With `overlap` 1 successive windows share an item, so that each item but a history's first is once a target
    that has its predecessor in the same window. The latest window is full, as histories are when they are scored.

    Args:
        offsets: (users + 1,) history u stands in rows offsets[u]:offsets[u + 1].
        size: most items a window.
        overlap: items that neighbours share, less than `size`.
    Returns:
        starts, lengths: (windows,) first row and number of items; histories with nothing to predict are left out.
    """
    step = size - overlap
    lengths = np.diff(offsets)
    usable = lengths > overlap
    begins, lengths = offsets[:-1][usable], lengths[usable]
    counts = -(-(lengths - overlap) // step)
    owner = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = begins[owner] + lengths[owner] - number * step
    starts = np.maximum(begins[owner], ends - size)
    return starts, ends - starts


class WindowBatches:
    """Batches of windows of like length, with a budget of padded positions."""

    def __init__(self, offsets: np.ndarray, items: np.ndarray, size: int, overlap: int, tokens: int) -> None:
        self.items = items
        self.tokens = tokens
        self.starts, self.lengths = windows(offsets, size, overlap)
        self.targets = int((self.lengths - overlap).sum()) if overlap else int(self.lengths.sum())

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Window numbers of each batch of an epoch: shuffled, sorted by length within pools of 64 batches, shuffled."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.starts))
        mean = float(self.lengths.mean()) if len(order) else 1.0
        pool = max(1, int(64 * self.tokens / mean))
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            chosen = order[start : start + pool]
            chosen = chosen[np.argsort(-self.lengths[chosen], kind="stable")]
            batches += self._cut(chosen)
        rng.shuffle(batches)
        return batches

    def _cut(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Cut windows sorted by falling length so that rows x longest stays within the budget."""
        found = []
        start = 0
        while start < len(chosen):
            rows = max(1, self.tokens // int(self.lengths[chosen[start]]))
            found.append(chosen[start : start + rows])
            start += rows
        return found

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        """(batch, length) int64 items of the windows, padded on the right with 0.

        No window (a process whose share of a small batch is empty) is a batch without rows that models still accept.
        """
        if not len(numbers):
            return np.zeros((0, 2), np.int64)
        return padded(self.items, self.starts[numbers], self.lengths[numbers])

    def epoch(self, seed: int, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """The batches of an epoch, from number `skip` on."""
        for numbers in self.plan(seed, epoch)[skip:]:
            yield self.batch(numbers)


class PrefixBatches(WindowBatches):
    """Batches of single targets, each after up to `size` items before it, for models that read a history to one end.

    A row is the user's id, the items before the target, the target, and zeros.
    """

    def __init__(
        self, offsets: np.ndarray, items: np.ndarray, size: int, tokens: int, targets: np.ndarray | None = None
    ) -> None:
        """
        Args:
            offsets: (users + 1,) user u stands in rows offsets[u - 1]:offsets[u].
            items: (rows,) in time order within a user.
            size: most items before a target.
            tokens: most rows times longest row (without the user) of a batch.
            targets: (items + 1,) which items may be targets; None takes all.
        """
        self.items = items
        self.tokens = tokens
        counts = np.diff(offsets)
        self.users = np.repeat(np.arange(1, len(counts) + 1), counts)
        place = np.arange(len(items)) - np.repeat(offsets[:-1], counts)
        chosen = place > 0
        if targets is not None:
            chosen &= targets[items]
        ends = np.flatnonzero(chosen)
        self.lengths = np.minimum(place[ends], size) + 1
        self.starts = ends + 1 - self.lengths
        self.targets = len(ends)

    def batch(self, numbers: np.ndarray) -> np.ndarray:
        """(batch, 1 + length) int64; no targets make a batch without rows that models still accept."""
        if not len(numbers):
            return np.zeros((0, 3), np.int64)
        starts = self.starts[numbers]
        rows = padded(self.items, starts, self.lengths[numbers])
        return np.concatenate([self.users[starts, None], rows], axis=1)
