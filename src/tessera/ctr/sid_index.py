"""Semantic IDs as what events have in common: prefixes of codes, and an index of one history by prefix.

The semantic score of an event is the sum of the weights of the levels at which its prefix is the query's: the longest
common prefix, for codes whose levels refine each other. Codes without an order (product quantisation) are compared
level by level, which is the same sum over codes in place of prefixes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.codes import ABSENT, SemanticIds
from tessera.ctr.retrieval import Selected, by_label

UNIT = 1 << 20
"""The weights of all levels together: scores are integers, and equal ones are equal."""


class Prefixes(nn.Module):
    """What the levels of the codes mean for comparisons: `of(items)` gives a number for each level's prefix.

    Args:
        ids: codes of one part; a level that only tells items apart is left out.
        weights: what each level adds to the score; the same for all without it.
    Raises:
        ValueError: several parts, or other than one weight a level.
    """

    numbers: Tensor
    """(items + 1, levels) int64: equal where prefixes are; -1 where an item has no codes."""
    weights: Tensor
    """(levels,) int64, UNIT together."""

    def __init__(self, ids: SemanticIds, weights: list[float] | None = None) -> None:
        super().__init__()
        if len(ids.parts) != 1:
            raise ValueError(
                f"semantic IDs of {len(ids.parts)} parts ({', '.join(p.name for p in ids.parts)}), expected one: "
                "a quantizer that makes one code of all its tables"
            )
        (part,) = ids.parts
        codes = ids.of(0)[:, : part.meaningful]
        self.levels = part.meaningful
        self.ordered = part.ordered
        if weights is not None and len(weights) != self.levels:
            raise ValueError(f"level_weights has {len(weights)} numbers, expected {self.levels}, one a level")
        shares = np.array(weights if weights is not None else [1.0] * self.levels)
        numbers = codes.copy()
        present = codes[:, 0] != ABSENT
        if part.ordered:
            # a prefix is the prefix before it and one more code; numbered in one run, whatever the size of the codes
            before = np.zeros(int(present.sum()), np.int64)
            for level in range(self.levels):
                _, before = np.unique(before * part.sizes[level] + codes[present, level], return_inverse=True)
                numbers[present, level] = before
        self.counts = [int(column.max(initial=-1)) + 1 for column in numbers.T]
        """Prefixes that a level has."""
        self.register_buffer("numbers", torch.from_numpy(numbers), persistent=False)
        rounded = torch.from_numpy(np.round(shares / shares.sum() * UNIT).astype(np.int64))
        self.register_buffer("weights", rounded, persistent=False)

    def of(self, items: Tensor) -> Tensor:
        """(...) items -> (..., levels)."""
        return self.numbers[items]

    def score(self, events: Tensor, query: Tensor) -> Tensor:
        """Integers from 0 to UNIT: of (..., levels) and (..., levels), by broadcasting; 0 where one has no codes."""
        total: Tensor | None = None
        for level, weight in enumerate(self.weights.tolist()):  # a level at a time keeps the memory to one
            equal = (events[..., level] == query[..., level]) & (query[..., level] >= 0)
            total = equal * weight if total is None else total + equal * weight
        assert total is not None
        return total

    def mass(self, events: Tensor, window: Tensor, counted: Tensor) -> Tensor:
        """For queries of several events: at every level how many of them share the prefix, weighted and summed.

        Args:
            events: (rows, length, levels) that are scored.
            window: (rows, size, levels) the query's events.
            counted: (rows, size) int64: how often each counts; 0 for padding.
        Returns:
            (rows, length) integers, at most UNIT times the row's sum of `counted`.
        """
        rows = max(1, 2**24 // max(max(self.counts), 1))  # bounds the table of counts
        if len(events) > rows:
            parts = zip(*(torch.split(each, rows) for each in (events, window, counted)), strict=True)
            return torch.cat([self.mass(*part) for part in parts])
        total = torch.zeros(events.shape[:2], dtype=torch.int64, device=events.device)
        for level, weight in enumerate(self.weights.tolist()):
            here = window[..., level]
            table = torch.zeros(len(events), self.counts[level] + 1, dtype=torch.int64, device=events.device)
            table.scatter_add_(1, here + 1, counted * (here >= 0))
            total += table.gather(1, events[..., level] + 1) * weight
        return total


class PrefixIndex:
    """One history by prefix: for every level the events of each prefix, the latest first.

    Built once a history in O(length levels). The best k events of a query are found in O(levels + k), whatever the
    length: prefixes nest, so that there is one level whose prefix has k events or more while the next, deeper one has
    fewer. All events of the deeper one are taken, and the latest of the other ones fill the places. At most k of those
    have to be looked at, because the ones to pass over are the fewer than k that are taken already.
    """

    def __init__(self, prefixes: Prefixes, events: Tensor) -> None:
        """
        Args:
            prefixes: those of the catalogue, of ordered codes.
            events: (length, levels) prefixes of the events, at least one.
        """
        if not prefixes.ordered:
            raise ValueError("codes without an order have no prefixes: scan them")
        self.length = len(events)
        # a level without weight tells nothing apart; level 0, which all events share, is the outermost
        self.levels = torch.nonzero(prefixes.weights > 0)[:, 0].tolist()
        device = events.device
        self._events = [torch.arange(self.length - 1, -1, -1, device=device)]
        self._starts = [torch.tensor([0, self.length], device=device)]
        self._numbers = [torch.zeros(self.length, dtype=torch.int64, device=device)]
        for level in self.levels:
            numbers = events[:, level] + 1  # 0: no codes
            counts = torch.bincount(numbers, minlength=prefixes.counts[level] + 1)
            self._starts.append(torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
            self._events.append(by_label(numbers))
            self._numbers.append(numbers)

    def best(self, query: Tensor, k: int, matches_only: bool) -> Selected:
        """The best k events for each of (rows, levels) prefixes, as scanning finds them.

        Args:
            matches_only: leave out events that share nothing with the query.
        """
        numbers = [torch.zeros_like(query[:, 0]), *(query[:, level] + 1 for level in self.levels)]
        starts = torch.stack([start[number] for start, number in zip(self._starts, numbers, strict=True)])
        ends = torch.stack([start[number + 1] for start, number in zip(self._starts, numbers, strict=True)])
        sizes = ends - starts  # (depths, rows), from all events to the longest prefix
        known = torch.stack(numbers) > 0
        known[0] = not matches_only
        sizes = torch.where(known, sizes, 0)
        if matches_only:
            sizes[0] = self.length  # stands outside: nothing is taken from it
        enough = sizes >= k
        enough[0] = True
        outer = enough.long().mul(torch.arange(1, len(sizes) + 1, device=query.device)[:, None]).argmax(0)
        place = torch.arange(k, device=query.device)
        positions = query.new_zeros(len(query), 2 * k)
        valid = torch.zeros(len(query), 2 * k, dtype=torch.bool, device=query.device)
        for depth in range(len(sizes)):
            rows = torch.nonzero(outer == depth)[:, 0]
            if not len(rows):
                continue
            inside = torch.zeros_like(rows)
            if depth + 1 < len(sizes):
                inside = sizes[depth + 1, rows]
                at = (starts[depth + 1, rows, None] + place).clamp(max=self.length - 1)
                positions[rows, :k] = self._events[depth + 1][at]
                valid[rows, :k] = place < inside[:, None]
            if depth == 0 and matches_only:
                continue
            at = (starts[depth, rows, None] + place).clamp(max=self.length - 1)
            events = self._events[depth][at]
            new = place < sizes[depth, rows, None]
            if depth + 1 < len(sizes):
                deeper = numbers[depth + 1][rows, None]
                new &= (self._numbers[depth + 1][events] != deeper) | (deeper == 0)
            new &= new.cumsum(1) <= k - inside[:, None]
            positions[rows, k:] = events
            valid[rows, k:] = new
        selected = Selected.in_time(positions, valid, self.length, k)
        return Selected(selected.positions[:, :k], selected.valid[:, :k])
