"""What item encoders share: standardised tables, adapters, and the targets of a whole step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.artifacts.sequences import ItemSequences, mapped, scratch


def standardized(vectors: Tensor, present: Tensor) -> Tensor:
    """Vectors (..., width) centred and at unit mean square over what is `present` (...), zero elsewhere."""
    mean, scale = standard(vectors, present)
    return (vectors - mean) / scale * present[..., None]


def standard(vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """What `standardized` takes off, (width,), and divides by, (): mean and root mean square of what is present."""
    mean = vectors[present].mean(0)
    return mean, _spread((vectors - mean)[present].square().mean(), mean)


def _spread(square: Tensor, mean: Tensor) -> Tensor:
    """() the root of a mean square about a mean (width,); 1 where that is no more than what rounding leaves.

    Divided by what rounding leaves of rows that are alike, an item that comes later would be many million times as
    large as the others.
    """
    spread = square.sqrt()
    return torch.where(spread > 1e-6 * mean.square().mean().sqrt(), spread, 1.0)


_BLOCK = 2**25
"""Numbers of a table that are in memory at a time, where it is a mapped file."""


def standardized_sequences(rows: ItemSequences) -> tuple[ItemSequences, Tensor]:
    """Several rows an item, centred and at unit mean square over all rows, and their mean (dim,), about zero.

    The distinct ones come in ascending order. Rows are taken some at a time, and what is made of them is mapped again:
    tables may be larger than the memory.
    """
    values = torch.from_numpy(rows.values)
    width = values.shape[1]
    size = max(1, _BLOCK // width)
    room = torch.empty((min(size, rows.value_index.size), width), dtype=values.dtype)

    def some(at: Tensor, of: Tensor = values) -> Tensor:
        # always into the same memory: freed blocks of this size would not all be given back
        return torch.index_select(of, 0, at, out=room[: len(at)])

    blocks = torch.split(torch.from_numpy(rows.value_index[rows.present]), size)
    mean = _weighted([some(block).mean(0) for block in blocks], blocks)
    square = _weighted([some(block).sub_(mean).square_().mean() for block in blocks], blocks)
    scale = _spread(square, mean)

    def column(at: np.ndarray, number: int) -> np.ndarray:
        block_rows: np.ndarray = ((values[torch.from_numpy(at), number] - mean[number]) / scale).numpy()
        return block_rows

    order, ranks = _in_order(len(values), width, column)
    with scratch(rows.folder) as file:
        for block in torch.split(torch.from_numpy(order), size):
            file.write(some(block).sub_(mean).div_(scale).numpy().data)
        distinct = mapped(file, len(order), width, rows.values.dtype)
    made = ItemSequences(distinct, np.append(ranks, len(order))[rows.value_index], rows.folder)
    blocks = torch.split(torch.from_numpy(made.value_index[made.present]), size)
    return made, _weighted([some(block, torch.from_numpy(distinct)).mean(0) for block in blocks], blocks)


def _weighted(parts: Sequence[Tensor], blocks: Sequence[Tensor]) -> Tensor:
    """The mean over all rows from the means of blocks."""
    if len(parts) == 1:
        return parts[0]
    total = sum(len(block) for block in blocks)
    weighed = [part.double() * (len(block) / total) for part, block in zip(parts, blocks, strict=True)]
    return torch.stack(weighed).sum(0).to(parts[0].dtype)


def _in_order(count: int, width: int, column: Callable[[np.ndarray, int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows in ascending order of their first number, then of their second ..., equal ones once.

    Args:
        count: how many rows.
        width: of a row.
        column: gives a column of some rows.
    Returns:
        (distinct,) one row of each kind, ascending; (count,) the place of every row's kind among them.
    """
    order, first = np.arange(count), np.ones(count, bool)  # `first`: a row that is not that before it
    first[1:] = False
    ties = [(0, count)]
    for number in range(width):
        left: list[tuple[int, int]] = []
        for start, end in ties:
            values = column(order[start:end], number)
            by_value = np.argsort(values, kind="stable")
            order[start:end], values = order[start:end][by_value], values[by_value]
            differs = np.flatnonzero(values[1:] != values[:-1]) + 1
            first[start + differs] = True
            bounds = [0, *differs.tolist(), end - start]
            left += [(start + a, start + b) for a, b in pairwise(bounds) if b - a > 1]
        ties = left
        if not ties:
            break
    ranks = np.empty(count, np.int64)
    ranks[order] = np.cumsum(first) - 1
    return order[first], ranks


def make_adapter(
    widths: Sequence[int], dim: int, dropout: float, activation: Literal["gelu", "none"] = "gelu", norm: bool = False
) -> nn.Sequential:
    """Layers through `widths`, the first of which enters, to item vectors of width `dim`.

    They begin at the scale of trainable vectors, whatever the scale of what enters.
    """
    layers: list[nn.Module] = [nn.LayerNorm(widths[0])] if norm else []
    for before, after in pairwise(widths):
        between = nn.GELU() if activation == "gelu" else nn.Identity()
        layers += [nn.Linear(before, after), between, nn.Dropout(dropout)]
    last = nn.Linear(widths[-1], dim)
    nn.init.normal_(last.weight, std=0.05 / widths[-1] ** 0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def at_most(items: Tensor, most: int, *key: int) -> Tensor:
    """Items (n,), or so many of them in their order, drawn by a key (seed, epoch, step): the same in all processes."""
    if len(items) <= most:
        return items
    chosen = np.random.default_rng(key).permutation(len(items))[:most]
    return items[torch.from_numpy(np.sort(chosen)).to(items.device)]


def as_long_as_the_step(histories: Tensor) -> Tensor:
    """Histories (batch, length) padded on the right with 0 to the longest of all processes, as one would have them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return histories
    longest = torch.tensor([histories.shape[1]], device=histories.device)
    torch.distributed.all_reduce(longest, torch.distributed.ReduceOp.MAX)
    return F.pad(histories, (0, int(longest) - histories.shape[1]))


def of_all_processes(targets: Tensor) -> Tensor:
    """The targets of the whole step: a contrast among fewer items would be another loss with every process more."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return targets
    world = torch.distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.int64, device=targets.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor([len(targets)], device=targets.device))
    most = int(torch.cat(counts).max())
    parts = [torch.zeros(most, dtype=targets.dtype, device=targets.device) for _ in range(world)]
    torch.distributed.all_gather(parts, F.pad(targets, (0, most - len(targets))))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
