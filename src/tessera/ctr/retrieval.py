"""The best k events of long histories, exactly: the highest scores, and of equal scores the latest events.

Scores are integers, so that ties are ties in whatever order something was computed; `ordered` makes integers of real
numbers. An event's place in its history is its position; a larger position is a later event. What is found is told in
order of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
        kept = positions < end
        return cls(positions.masked_fill(~kept, 0), kept)

    def take(self, values: Tensor) -> Tensor:
        """The values (rows, length, ...) or, shared by all rows, (1, length, ...) of the events: (rows, k, ...)."""
        if values.shape[0] == 1:
            return values[0][self.positions]
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values[rows, self.positions]

    def mask(self, length: int) -> Tensor:
        """(rows, length) bool: which events were found."""
        mask = torch.zeros(len(self.positions), length, dtype=torch.bool, device=self.positions.device)
        rows = torch.arange(len(mask), device=mask.device)[:, None].expand_as(self.positions)
        mask[rows[self.valid], self.positions[self.valid]] = True
        return mask


def ordered(scores: Tensor) -> Tensor:
    """float32 scores as integers in the same order: the bits of a float compare like those of an integer."""
    bits = (scores.detach().float() + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def largest(keys: Tensor, k: int) -> Tensor:
    """(rows, at most k) the largest of (rows, n) integers, in no order: numpy selects them with vector instructions."""
    k = min(k, keys.shape[-1])
    if keys.device.type != "cpu":
        return keys.topk(k, sorted=False).values
    if k == keys.shape[-1]:
        return keys
    place = keys.shape[-1] - k
    return torch.from_numpy(np.partition(keys.numpy(), place, -1)[..., place:])


def best(scores: Tensor, k: int, valid: Tensor) -> Selected:
    """Scan histories.

    Args:
        scores: (rows, length) integers.
        k: events wanted.
        valid: (rows, length) bool, or of one row: which events there are.
    """
    length = scores.shape[-1]
    lowest = torch.iinfo(scores.dtype).min
    # a key tells score and position: no two are equal, and the position need not be carried along
    keys = scores * length + torch.arange(length, device=scores.device, dtype=scores.dtype)
    top = largest(keys.masked_fill(~valid, lowest), k)
    return Selected.in_time(top.remainder(length).long(), top > lowest, length, k)


def latest(lengths: Tensor, k: int) -> Selected:
    """The last k events of histories of `lengths` (rows,)."""
    positions = lengths[:, None] - k + torch.arange(k, device=lengths.device)
    # what is not there goes to the end of the row, as everywhere
    first = (k - lengths[:, None]).clamp(min=0)
    columns = (torch.arange(k, device=lengths.device) + first).clamp(max=k - 1)
    valid = torch.arange(k, device=lengths.device) < lengths[:, None]
    return Selected(positions.gather(1, columns).masked_fill(~valid, 0), valid)


def union(first: Selected, second: Selected, length: int) -> Selected:
    """Both selections of the same rows, an event that is in both once: places are those of both together."""
    positions = torch.cat([first.positions, second.positions], -1)
    valid = torch.cat([first.valid, second.valid], -1)
    positions = positions.masked_fill(~valid, length).sort(-1).values
    again = torch.zeros_like(valid)
    again[..., 1:] = positions[..., 1:] == positions[..., :-1]
    return Selected.in_time(positions, (positions < length) & ~again, length, positions.shape[-1])


def by_label(labels: Tensor) -> Tensor:
    """(length,) positions, label after label in rising order, of each the latest first."""
    length = len(labels)
    if labels.device.type != "cpu" or labels.max() > np.iinfo(np.uint16).max:
        backwards = torch.arange(length - 1, -1, -1, device=labels.device)
        return backwards[torch.sort(labels[backwards], stable=True).indices]
    order = np.argsort(labels.numpy()[::-1].astype(np.uint16), kind="stable")  # numpy sorts 16 bits by counting
    return torch.from_numpy(length - 1 - order)


SCANNED = 1 << 16
"""Up to so many scores it is less work to look at every event than to tell groups apart."""


class Groups:
    """One history by what events have in common (their item, their hash code): a score is of a group, not of an event.

    Interests recur, so a history has far fewer groups than events. The result is that of `best` over all events. Of
    the i-th best group, counted from 0 and with the latest event deciding ties, at most k - i events are among the best
    k, because each group before it has an event that comes before all of its own; and at most as many as the groups
    of higher scores leave.
    """

    def __init__(self, labels: Tensor) -> None:
        """
        Args:
            labels: (length,) integers from 0, at least one: events with equal labels are a group.
        """
        self.length = len(labels)
        self.events = by_label(labels)
        """(length,) positions, group after group, in each the latest first."""
        in_order = labels[self.events]
        first = torch.ones_like(in_order, dtype=torch.bool)
        first[1:] = in_order[1:] != in_order[:-1]
        self.starts = torch.nonzero(first)[:, 0]
        """(groups,) where in `events` each begins."""
        self.labels = in_order[self.starts]
        """(groups,) the label of each group, rising."""
        self.counts = torch.diff(self.starts, append=self.starts.new_tensor([self.length]))
        """(groups,) events of each."""
        self.latest = self.events[self.starts]
        """(groups,) position of the last event of each."""
        self._group = torch.empty_like(self.events)
        self._group[self.events] = first.cumsum(0) - 1

    def __len__(self) -> int:
        return len(self.labels)

    def best(self, scores: Tensor, k: int, valid: Tensor | None = None) -> Selected:
        """
        Args:
            scores: (rows, groups) integers.
            k: events wanted.
            valid: (rows, groups) bool: groups that may be found; all without it.
        """
        if len(scores) * self.length <= SCANNED:
            there = torch.ones_like(scores[:1], dtype=torch.bool) if valid is None else valid
            return best(scores[:, self._group], k, there[:, self._group])
        lowest = torch.iinfo(scores.dtype).min
        keys = scores * self.length + self.latest.to(scores.dtype)
        if valid is not None:
            keys = keys.masked_fill(~valid, lowest)
        keys = largest(keys, k).sort(-1, descending=True).values.long()
        there = keys > lowest
        score = keys.div(self.length, rounding_mode="floor")
        groups = self._group[keys - score * self.length]
        counts = self.counts[groups] * there
        # events of groups with higher scores: those before the first group of the same score
        before = counts.cumsum(1) - counts
        same = torch.zeros_like(there)
        same[:, 1:] = score[:, 1:] == score[:, :-1]
        higher = before.masked_fill(same, 0).cummax(1).values
        rank = torch.arange(groups.shape[1], device=groups.device)
        taken = torch.minimum(counts, (k - torch.maximum(higher, rank)).clamp(min=0))

        # of each group the first `taken` events, laid in a row: more than k only where scores are equal
        many = taken.sum(1)
        flat = taken.flatten()
        start = flat.cumsum(0) - flat
        place = torch.arange(int(flat.sum()), device=flat.device)
        which = torch.repeat_interleave(flat)
        events = self.events[self.starts[groups].flatten()[which] + place - start[which]]
        own = score.flatten()[which] * self.length + events
        column = torch.arange(int(many.max()), device=flat.device)
        filled = torch.full((len(groups), len(column)), torch.iinfo(torch.int64).min, device=flat.device)
        filled[column < many[:, None]] = own
        chosen = largest(filled, k)
        valid_places = chosen > torch.iinfo(torch.int64).min
        return Selected.in_time(chosen.remainder(self.length), valid_places, self.length, k)
