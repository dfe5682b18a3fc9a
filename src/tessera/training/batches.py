"""Histories in windows, windows in batches: no target lost, little padding, the same order for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from tessera.evaluation.histories import Histories, slices


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

    def __init__(
        self,
        offsets: np.ndarray,
        items: np.ndarray,
        size: int,
        overlap: int,
        tokens: int,
        times: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            offsets: (users + 1,) user u stands in rows offsets[u - 1]:offsets[u].
            items: (rows,) in time order within a user.
            size: most items a window.
            overlap: items that neighbours share; with 1 all items of a window but its first are targets.
            tokens: most rows times longest row of a batch.
            times: (rows,) seconds of the items, for systems that read them.
        """
        self.offsets, self.items, self.times = offsets, items, times
        self.tokens = tokens
        self.starts, self.lengths = windows(offsets, size, overlap)
        self.targets = self._count(overlap)

    def _count(self, overlap: int) -> int:
        """Training targets of an epoch."""
        return int((self.lengths - overlap).sum())

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Window numbers of each batch of an epoch: shuffled, sorted by length within pools of 64 batches, shuffled."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(self.starts))
        batches: list[np.ndarray] = []
        for chosen in self._pools(order):
            chosen = chosen[np.argsort(-self.lengths[chosen], kind="stable")]
            batches += self._cut(chosen)
        rng.shuffle(batches)
        return batches

    @cached_property
    def _mean(self) -> float:
        """Items of a window, on average."""
        return float(self.lengths.mean()) if len(self.lengths) else 1.0

    def _pools(self, order: np.ndarray) -> list[np.ndarray]:
        """Shuffled windows, cut into those that are sorted together."""
        size = max(1, int(64 * self.tokens / self._mean))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _cut(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Cut windows sorted by falling length so that rows x longest stays within the budget."""
        batches = []
        start = 0
        while start < len(chosen):
            rows = max(1, self.tokens // int(self.lengths[chosen[start]]))
            batches.append(chosen[start : start + rows])
            start += rows
        return batches

    def batch(self, numbers: np.ndarray) -> Histories:
        """The windows as histories, every item but the first (with overlap 0: any that the model hides) a target.

        No window (a process whose share of a small batch is empty) is a batch without rows that models still accept.
        """
        if not len(numbers):
            return _nothing(self.times)
        return slices(self.items, self.starts[numbers], self.lengths[numbers], self.users(numbers), self.times)

    def users(self, numbers: np.ndarray) -> np.ndarray:
        """(batch,) ids of the users whose windows these are."""
        owners: np.ndarray = np.searchsorted(self.offsets, self.starts[numbers], side="right")
        return owners

    def epoch(self, seed: int, epoch: int, skip: int = 0) -> Iterator[Histories]:
        """The batches of an epoch, from number `skip` on."""
        for numbers in self.plan(seed, epoch)[skip:]:
            yield self.batch(numbers)


def _nothing(times: np.ndarray | None) -> Histories:
    empty = np.zeros((0, 2), np.int64)
    return Histories.of(empty, times=None if times is None else empty.astype(np.float64))


class SingleTargetBatches(WindowBatches):
    """Batches of windows with one target each, their last item: all of the same number, give or take one.

    A step is the mean over its targets. With a budget of positions, a target after one item would share its step with
    25 times as many others as one after fifty, and count that much less. So `tokens` is what a batch has on average;
    batches of the longest windows have more.
    """

    def _count(self, overlap: int) -> int:
        """One a window."""
        return len(self.starts)

    def _pools(self, order: np.ndarray) -> list[np.ndarray]:
        """Pools of the same size, so that none ends in a batch of a few."""
        return self._parts(order, 64 * self.tokens)

    def _cut(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Cut rows sorted by falling length into batches of the same number."""
        return self._parts(chosen, self.tokens)

    def _parts(self, rows: np.ndarray, positions: int) -> list[np.ndarray]:
        """Parts of the same size that hold so many positions on average; none is empty."""
        parts = max(1, round(len(rows) * self._mean / positions))
        return np.array_split(rows, min(parts, len(rows))) if len(rows) else []


class PrefixBatches(SingleTargetBatches):
    """Batches of single targets, each after up to `size` items before it, for models that read a history to one end."""

    def __init__(
        self,
        offsets: np.ndarray,
        items: np.ndarray,
        size: int,
        tokens: int,
        targets: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            offsets: (users + 1,) user u stands in rows offsets[u - 1]:offsets[u].
            items: (rows,) in time order within a user.
            size: most items before a target.
            tokens: positions of a batch, the targets with them, on average over an epoch.
            targets: (items + 1,) which items may be targets; None takes all.
            times: (rows,) seconds of the items, for systems that read them.
        """
        self.offsets, self.items, self.times = offsets, items, times
        self.tokens = tokens
        counts = np.diff(offsets)
        place = np.arange(len(items)) - np.repeat(offsets[:-1], counts)
        chosen = place > 0
        if targets is not None:
            chosen &= targets[items]
        ends = np.flatnonzero(chosen)
        self.lengths = np.minimum(place[ends], size) + 1
        self.starts = ends + 1 - self.lengths
        self.targets = len(ends)

    def batch(self, numbers: np.ndarray) -> Histories:
        """The items before each target, and the targets; no targets make a batch that models still accept."""
        if not len(numbers):
            return replace(_nothing(self.times), targets=torch.zeros(0, dtype=torch.int64))
        starts, lengths = self.starts[numbers], self.lengths[numbers] - 1
        histories = slices(self.items, starts, lengths, self.users(numbers), self.times)
        return replace(histories, targets=torch.from_numpy(self.items[starts + lengths]).long())
