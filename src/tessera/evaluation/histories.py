"""Histories in a batch: what a recommender is asked with, and what it learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tessera.data.padding import padded


@dataclass(frozen=True)
class Histories:
    """Histories of a batch, padded on the right with 0."""

    items: Tensor
    """(batch, length) int64 item ids, oldest first; an empty history is a row of 0."""
    lengths: Tensor
    """(batch,) int64 number of items; 1 where a history is empty."""
    users: Tensor
    """(batch,) int64 ids of the users; 0 is nobody known."""
    times: Tensor | None = None
    """(batch, length) float64 seconds, NaN where no time is known; None where nobody asked (`reads_times`)."""
    targets: Tensor | None = None
    """(batch,) item ids to predict; None where every item of a history but its first is a target, and where the judge
    asks."""

    def __len__(self) -> int:
        return len(self.items)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def take(self, rows: Tensor | slice) -> Self:
        """Some of the rows."""
        return self._each(lambda part: part[rows])

    def split(self, size: int) -> Iterator[Self]:
        """Parts of so many rows, each no longer than its own longest history."""
        for start in range(0, len(self), size):
            part = self.take(slice(start, start + size))
            longest = max(1, int(part.lengths.max()))
            times = None if part.times is None else part.times[:, :longest]
            yield type(self)(part.items[:, :longest], part.lengths, part.users, times, part.targets)

    def latest(self, length: int | None) -> Self:
        """The ends of the histories, of at most so many items; None leaves them whole."""
        if length is None or self.items.shape[1] <= length:
            return self
        kept = self.lengths.clamp(max=length)
        columns = torch.arange(length, device=self.items.device)
        real = columns < kept[:, None]
        positions = torch.where(real, (self.lengths - kept)[:, None] + columns, 0)
        items = torch.where(real, self.items.gather(1, positions), 0)
        times = None if self.times is None else self.times.gather(1, positions).masked_fill(~real, math.nan)
        return replace(self, items=items, lengths=kept, times=times)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts: dict[str, Tensor | None] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})

    @classmethod
    def of(
        cls,
        items: np.ndarray,
        lengths: np.ndarray | None = None,
        users: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> Self:
        """From arrays: items (batch, length); without lengths they are counted, without users nobody is known."""
        counted = np.maximum((items > 0).sum(1), 1) if lengths is None else np.maximum(lengths, 1)
        return cls(
            torch.from_numpy(items).long(),
            torch.from_numpy(counted).long(),
            torch.zeros(len(items), dtype=torch.int64) if users is None else torch.from_numpy(users).long(),
            None if times is None else torch.from_numpy(times).double(),
        )


def slices(
    items: np.ndarray, starts: np.ndarray, lengths: np.ndarray, users: np.ndarray, times: np.ndarray | None
) -> Histories:
    """Slices of flat arrays as a batch; `times` are seconds beside `items`."""
    clock = None if times is None else padded_times(times, starts, lengths)
    return Histories.of(padded(items, starts, lengths), lengths, users, clock)


def padded_times(times: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(rows, longest) float64 slices of `times`, NaN where there is none."""
    columns = np.arange(max(1, int(lengths.max(initial=0))))
    real = columns < lengths[:, None]
    indices = np.where(real, starts[:, None] + columns, 0)
    return np.where(real, times[indices] if len(times) else np.nan, np.nan)
