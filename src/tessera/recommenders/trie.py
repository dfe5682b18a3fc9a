"""The codes of a catalogue as a tree of prefixes: which codes may follow which, so that decoding can only reach items.

Flat arrays and no pointers, so that every question is answered for a whole batch of nodes at once, on any device. Items
are sorted by their codes; then the children of a node stand in one run, and so do the items below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tessera.artifacts.codes import ABSENT

ROOT = 0
"""The node of the empty prefix."""
NOWHERE = -1
"""The node of a prefix that no item has."""


class CodeTrie(nn.Module):
    """The prefixes of (items + 1, levels) codes as nodes 0, 1, ...: the root, then level after level, each sorted.

    A node of level `l` stands for a prefix of `l` codes; the nodes of level `l` are `level_starts[l]` up to
    `level_starts[l + 1]`, and those of the last level are the leaves. Items with equal codes share a leaf. The arrays
    are buffers that follow the module to its device and are not saved: they are made of the codes.

    Args:
        codes: (items + 1, levels) codes from 0; rows with ABSENT codes (row 0 among them) are left out.
        sizes: codes to choose from, a level each.
    Raises:
        ValueError: no item has codes, a code lies outside its level, or an item has only some of its codes.
    """

    first_child: Tensor
    """(nodes,) the first child; children are consecutive nodes, ascending by code."""
    child_count: Tensor
    """(nodes,) how many children a node has; 0 for leaves."""
    code: Tensor
    """(nodes,) the last code of the prefix; -1 for the root."""
    parent: Tensor
    """(nodes,) the prefix without its last code; NOWHERE for the root."""
    items: Tensor
    """(items with codes,) item ids sorted by their codes, then by id."""
    first_item: Tensor
    """(nodes,) where in `items` those below the node begin."""
    item_count: Tensor
    """(nodes,) how many items are below the node."""
    leaf_of: Tensor
    """(items + 1,) the leaf of each item; NOWHERE where it has no codes."""
    _keys: Tensor

    def __init__(self, codes: NDArray[np.int64], sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.levels = len(self.sizes)
        codes = np.asarray(codes, np.int64)
        if codes.ndim != 2 or codes.shape[1] != self.levels or not self.levels:
            raise ValueError(f"codes of shape {codes.shape}, expected (items + 1, {self.levels}), one column a level")
        items = np.flatnonzero((codes != ABSENT).any(1))
        rows = codes[items]
        if not len(rows):
            raise ValueError("no item has codes, so there is nothing to decode")
        wrong = (rows < 0) | (rows >= np.array(self.sizes))
        if wrong.any():
            bad = int(np.flatnonzero(wrong.any(1))[0])
            raise ValueError(f"item {items[bad]} has the codes {rows[bad].tolist()}, expected 0 up to {self.sizes}")
        order = np.lexsort((items, *rows.T[::-1]))
        items, rows = items[order], rows[order]

        # a row begins a new prefix of `l` codes where one of its first `l` codes differs from the row before
        fresh = np.ones(rows.shape, bool)
        fresh[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
        counts = fresh.sum(0)
        starts = np.concatenate([[0, 1], 1 + np.cumsum(counts)])
        self.level_starts = tuple(int(start) for start in starts)
        """(levels + 2,) the first node of each level, and how many nodes there are."""
        nodes = int(starts[-1])
        first_item, code = np.zeros(nodes, np.int64), np.full(nodes, -1)
        parent, above = np.full(nodes, NOWHERE), np.zeros(len(rows), np.int64)
        item_count = np.full(nodes, len(rows))
        for level in range(self.levels):
            begins = np.flatnonzero(fresh[:, level])
            own = slice(starts[level + 1], starts[level + 2])
            first_item[own], code[own], parent[own] = begins, rows[begins, level], above[begins]
            item_count[own] = np.diff(np.append(begins, len(rows)))
            above = starts[level + 1] + np.cumsum(fresh[:, level]) - 1
        children = np.bincount(parent[1:], minlength=nodes)
        first_child = 1 + np.cumsum(children) - children  # children follow in the order of their parents
        leaf_of = np.full(len(codes), NOWHERE)
        leaf_of[items] = above
        self.widths = tuple(int(children[starts[level] : starts[level + 1]].max()) for level in range(self.levels))
        """(levels,) the most children that a node of a level has."""
        self._radix = max(self.sizes)
        keys = parent * self._radix + code  # ascending: nodes are sorted by parent, then by code
        arrays = {
            "first_child": first_child,
            "child_count": children,
            "code": code,
            "parent": parent,
            "items": items,
            "first_item": first_item,
            "item_count": item_count,
            "leaf_of": leaf_of,
            "_keys": keys,
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, np.int64)), persistent=False)

    @property
    def nodes(self) -> int:
        """How many nodes there are, the root among them."""
        return self.level_starts[-1]

    @property
    def leaves(self) -> int:
        """How many different code strings there are."""
        return self.level_starts[-1] - self.level_starts[-2]

    def expand(self, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """The children of nodes (...) that all lie on `level`, or are NOWHERE.

        Returns:
            child nodes (..., widths[level]), ascending by code, NOWHERE after the last; and their codes, 0 there.
        """
        known = nodes.clamp_min(0)
        place = torch.arange(self.widths[level], device=nodes.device)
        inside = (place < self.child_count[known].unsqueeze(-1)) & (nodes >= 0).unsqueeze(-1)
        children = torch.where(inside, self.first_child[known].unsqueeze(-1) + place, NOWHERE)
        return children, torch.where(inside, self.code[children.clamp_min(0)], 0)

    def children_mask(self, nodes: Tensor, level: int) -> Tensor:
        """(..., sizes[level]) which codes may follow nodes (...) that all lie on `level`; none follows NOWHERE."""
        children, codes = self.expand(nodes, level)
        size = self.sizes[level]
        mask = torch.zeros(*nodes.shape, size + 1, dtype=torch.bool, device=nodes.device)
        # places after the last child write to a column of their own, which is cut off
        return mask.scatter(-1, torch.where(children >= 0, codes, size), True)[..., :size]

    def step(self, nodes: Tensor, codes: Tensor) -> Tensor:
        """The nodes reached from nodes (...) by codes (...); NOWHERE where no item has the prefix."""
        keys = nodes * self._radix + codes
        children = torch.searchsorted(self._keys, keys).clamp_max(self.nodes - 1)
        valid = (self._keys[children] == keys) & (nodes >= 0) & (codes >= 0) & (codes < self._radix)
        return torch.where(valid, children, NOWHERE)

    def prefix(self, nodes: Tensor, level: int) -> Tensor:
        """(..., level) the codes that lead to nodes (...) of `level`, from the root on."""
        codes = []
        for _ in range(level):
            codes.append(self.code[nodes])
            nodes = self.parent[nodes]
        return torch.stack(codes[::-1], -1) if codes else nodes.new_empty((*nodes.shape, 0))

    def items_of(self, node: int) -> Tensor:
        """Ids of the items below a node, sorted by their codes."""
        start = int(self.first_item[node])
        return self.items[start : start + int(self.item_count[node])]

    def to_items(self, values: Tensor, absent: float) -> Tensor:
        """(..., items) values of leaves (..., leaves) for items 1, 2, ...; `absent` where an item has no codes."""
        place = self.leaf_of[1:]
        known = values[..., (place - self.level_starts[-2]).clamp_min(0)]
        return torch.where(place >= 0, known, absent)
