"""The best k events of long histories, exactly: the highest scores, and of equal scores the latest events.

Scores are integers, so that ties are ties in whatever order something was computed; `ordered` makes integers of real
numbers. An event's place in its history is its position; a larger position is a later event. What is found is told in
order of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selected:
    """Events found, k places a row, in order of time."""

    positions: Tensor
    """(rows, k) int64 positions; 0 where nothing was found."""
    valid: Tensor
    """(rows, k) bool: whether the place holds an event."""

    @classmethod
    def in_time(cls, positions: Tensor, valid: Tensor, end: int, k: int) -> Selected:
        """Positions below `end` in order of time; what is not valid goes last, and a row is filled up to k places."""
        positions = positions.masked_fill(~valid, end).sort(-1).values
        if positions.shape[-1] < k:
            rest = positions.new_full((*positions.shape[:-1], k - positions.shape[-1]), end)
            positions = torch.cat([positions, rest], -1)
        found = positions < end
        return cls(positions.masked_fill(~found, 0), found)

    def take(self, values: Tensor) -> Tensor:
        """The values (rows, length, ...) or, shared by all rows, (1, length, ...) of the events: (rows, k, ...)."""
        if values.shape[0] == 1:
            return values[0][self.positions]
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values[rows, self.positions]

    def mask(self, length: int) -> Tensor:
        """(rows, length) bool: which events were found."""
        found = torch.zeros(len(self.positions), length, dtype=torch.bool, device=self.positions.device)
        rows = torch.arange(len(found), device=found.device)[:, None].expand_as(self.positions)
        found[rows[self.valid], self.positions[self.valid]] = True
        return found


def ordered(scores: Tensor) -> Tensor:
    """float32 scores as integers in the same order: the bits of a float compare like those of an integer."""
    bits = (scores.detach().float() + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def best(scores: Tensor, k: int, valid: Tensor) -> Selected:
    """Scan histories.

    Args:
        scores: (rows, length) integers.
        k: events wanted.
        valid: (rows, length) bool, or of one row: which events there are.
    """
    length = scores.shape[-1]
    places = torch.arange(length, device=scores.device, dtype=scores.dtype)
    lowest = torch.iinfo(scores.dtype).min
    keys = (scores * length + places).masked_fill(~valid, lowest)
    top = keys.topk(min(k, length), sorted=False)
    return Selected.in_time(top.indices, top.values > lowest, length, k)


def latest(lengths: Tensor, k: int) -> Selected:
    """The last k events of histories of `lengths` (rows,)."""
    positions = lengths[:, None] - k + torch.arange(k, device=lengths.device)
    # what is not there goes to the end of the row, as everywhere
    first = (k - lengths[:, None]).clamp(min=0)
    places = (torch.arange(k, device=lengths.device) + first).clamp(max=k - 1)
    valid = torch.arange(k, device=lengths.device) < lengths[:, None]
    return Selected(positions.gather(1, places).masked_fill(~valid, 0), valid)


def union(first: Selected, second: Selected, length: int) -> Selected:
    """Both selections of the same rows, an event that is in both once: places are those of both together."""
    positions = torch.cat([first.positions, second.positions], -1)
    valid = torch.cat([first.valid, second.valid], -1)
    positions = positions.masked_fill(~valid, length).sort(-1).values
    again = torch.zeros_like(valid)
    again[..., 1:] = positions[..., 1:] == positions[..., :-1]
    return Selected.in_time(positions, (positions < length) & ~again, length, positions.shape[-1])


class Groups:
    """One history by what events have in common (their item, their hash code): a score is of a group, not of an event.

    Interests recur, so a history has far fewer groups than events. The result is that of `best` over all events. The
    i-th best group, counted from 0 and with the latest event deciding ties, holds at most k - i of the best k events:
    each group before it has an event that comes before all of its own.
    """

    def __init__(self, labels: Tensor) -> None:
        """
        Args:
            labels: (length,) integers, at least one: events with equal labels are a group.
        """
        self.length = len(labels)
        self.labels, group = torch.unique(labels, return_inverse=True)
        """(groups,) the label of each group."""
        self.counts = torch.bincount(group, minlength=len(self.labels))
        """(groups,) events of each."""
        backwards = torch.arange(self.length - 1, -1, -1, device=labels.device)
        self.events = backwards[torch.sort(group[backwards], stable=True).indices]
        """(length,) positions, group after group, in each the latest first."""
        self._starts = self.counts.cumsum(0) - self.counts
        self.latest = self.events[self._starts]
        """(groups,) position of the last event of each."""

    def __len__(self) -> int:
        return len(self.labels)

    def best(self, scores: Tensor, k: int, valid: Tensor | None = None) -> Selected:
        """
        Args:
            scores: (rows, groups) integers.
            k: events wanted.
            valid: (rows, groups) bool: groups that may be found; all without it.
        """
        lowest = torch.iinfo(scores.dtype).min
        keys = scores * self.length + self.latest.to(scores.dtype)
        if valid is not None:
            keys = keys.masked_fill(~valid, lowest)
        top = keys.topk(min(k, len(self)))
        rank, place = torch.triu_indices(top.indices.shape[1], k, device=scores.device)
        groups, place = top.indices[:, rank], place - rank  # of the i-th group the first k - i events
        events = self.events[(self._starts[groups] + place).clamp(max=self.length - 1)]
        here = (place < self.counts[groups]) & (top.values[:, rank] > lowest)
        own = scores.gather(1, groups) * self.length + events.to(scores.dtype)
        chosen = own.masked_fill(~here, lowest).topk(min(k, own.shape[1]), sorted=False)
        return Selected.in_time(events.gather(1, chosen.indices), chosen.values > lowest, self.length, k)
