"""Ranks without sorting, and lists: count what scores above the target, and what scores the same; take the best."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# numbers of a tile: they stay in a core's cache, and it is worth what a tile costs to begin
_TILE = 2**18
# groups of columns for each that is wanted in a list: few scores are left, and few maxima are looked at
_GROUPS = 8


class ScoreError(ValueError):
    """Scores that cannot be ranked."""


class ScoreFormError(ValueError):
    """What a scorer gives is no table of scores."""


def tiles(scores: Tensor) -> Iterator[slice]:
    """Rows of (users, items) scores that are looked at together, again and again; on a device all."""
    size = max(1, _TILE // scores.shape[1]) if scores.device.type == "cpu" else len(scores)
    for start in range(0, len(scores), size):
        yield slice(start, start + size)


def check_scores(scores: Tensor, users: Tensor) -> bool:
    """Refuse NaN, naming the first user and item.

    Returns:
        whether all scores are known to be finite; false says nothing.
    Raises:
        ScoreError: a score is NaN.
    """
    total = float(scores.sum())  # one pass over the scores instead of three
    if not math.isnan(total):
        return math.isfinite(total)
    row, column = scores.isnan().nonzero()[0].tolist() if bool(scores.isnan().any()) else (-1, -1)
    if row >= 0:
        raise ScoreError(f"the score of item {column + 1} for user {int(users[row])} is NaN; a model must give numbers")
    return False


def mask_seen(scores: Tensor, histories: Tensor, targets: Tensor) -> None:
    """Put the items of each history out of the ranking, in place; the target stays.

    Args:
        scores: (users, items) of the catalogue, column i for item i + 1.
        histories: (users, length) item ids, 0 where there is none.
        targets: (users,) item ids.
    """
    chosen = scores.gather(1, targets[:, None] - 1)
    # the padding masks the target's own column, which is put back below
    columns = torch.where(histories > 0, histories, targets[:, None]) - 1
    scores.scatter_(1, columns, -math.inf)
    scores.scatter_(1, targets[:, None] - 1, chosen)


def ranks(scores: Tensor, chosen: Tensor, ties: str = "mean") -> Tensor:
    """Rank of a target among candidates: 1 + greater + equal / 2, or 1 + greater + equal for `pessimistic`.

    Args:
        scores: (users, candidates) including the target once.
        chosen: (users,) the target's own score, bit for bit as it stands among `scores`.
        ties: "mean" or "pessimistic".
    Returns:
        (users,) float64.
    """
    # written as floats and summed by a matrix product: three times as fast as counting booleans
    ones = torch.ones(scores.shape[1], dtype=scores.dtype, device=scores.device)
    work = scores.new_empty(max(scores[tile].numel() for tile in tiles(scores)))
    halves = ties == "mean" and bool(chosen.isfinite().all())
    first, second = torch.empty_like(chosen), torch.empty_like(chosen)
    for tile in tiles(scores):
        part, target = scores[tile], chosen[tile, None]
        compared = work[: part.numel()].view(part.shape)
        if halves:  # 1 above, -1 below, 0 for equals: all that the mean asks for, in one sum
            torch.mv(torch.sub(part, target, out=compared).sign_(), ones, out=first[tile])
        else:
            torch.mv(torch.gt(part, target, out=compared), ones, out=first[tile])
            torch.mv(torch.eq(part, target, out=compared), ones, out=second[tile])
    if halves:
        return 1 + (first.double() + (scores.shape[1] - 1)) / 2
    weight = 0.5 if ties == "mean" else 1.0
    return 1 + first.double() + weight * (second.double() - 1)


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `torch.topk` of (users, items) scores gives, to the choice among equals: values and columns (users, k).

    Nothing below the (k + 1)th highest maximum of groups of columns can be one of the k best. Where the best are all
    different, they are the best of what is left; rows with equals, or with much left, are given to `topk` as they are.
    """
    users, items = scores.shape
    wanted = k + 1
    if items < 2 * _GROUPS * wanted or scores.device.type != "cpu":
        return torch.topk(scores, k, dim=1)
    rows, columns, few = _left(scores, wanted)
    counts = np.bincount(rows, minlength=users)
    shape = users, max(wanted, int(counts.max()))
    beside = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    values, columns_of = scores.new_full(shape, -math.inf), np.zeros(shape, np.int64)
    values.numpy()[rows, beside], columns_of[rows, beside] = scores.numpy()[rows, columns], columns
    best = torch.topk(values, wanted, dim=1)
    chosen, indices = best.values[:, :k], torch.from_numpy(columns_of).gather(1, best.indices[:, :k])
    whole = (best.values[:, 1:] == best.values[:, :-1]).any(1) | torch.from_numpy(~few)
    if bool(whole.any()):
        chosen, indices = chosen.clone(), indices.clone()
        chosen[whole], indices[whole] = torch.topk(scores[whole], k, dim=1)
    return chosen, indices


def _left(scores: Tensor, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns, row by row, of all scores not below the row's `wanted`th highest maximum of groups.

    Third, the rows (users,) of which few are left. Of the others, such as those with hardly any score above the lowest,
    nothing is listed: that would be all columns.
    """
    groups = _GROUPS * wanted
    depth = scores.shape[1] // groups
    most = 4 * wanted
    flat = []
    for tile in tiles(scores):
        part = scores[tile]
        highest = part.narrow(1, 0, groups * depth).view(len(part), depth, groups).amax(1).numpy()
        least = np.partition(highest, groups - wanted, axis=1)[:, groups - wanted, None]
        left = part.numpy() >= least
        if np.count_nonzero(left) > most * len(left):  # of all rows at once it is counted in no time
            left[np.count_nonzero(left, axis=1) > most] = False
        flat.append(np.flatnonzero(left) + tile.start * scores.shape[1])
    rows, columns = np.divmod(np.concatenate(flat), scores.shape[1])
    counts = np.bincount(rows, minlength=len(scores))
    few = (counts > 0) & (counts <= most)
    kept = few[rows]
    return rows[kept], columns[kept], few
