"""Ranks without sorting, and lists: count what scores above the target, and what scores the same; take the best."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# numbers of a tile: they stay in a core's cache, and it is worth what a tile costs to begin
_TILE = 2**18


class ScoreError(ValueError):
    """Scores that cannot be ranked."""


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


def ranks(scores: Tensor, chosen: Tensor, ties: str = "mean", work: Tensor | None = None) -> Tensor:
    """Rank of a target among candidates: 1 + greater + equal / 2, or 1 + greater + equal for `pessimistic`.

    Args:
        scores: (users, candidates) including the target once.
        chosen: (users,) the target's own score, bit for bit as it stands among `scores`.
        ties: "mean" or "pessimistic".
        work: at least as many numbers of the type of `scores` to write in; None asks for them anew.
    Returns:
        (users,) float64.
    """
    # comparisons written as floats and summed by a matrix product: three times as fast as counting booleans
    ones = torch.ones(scores.shape[1], dtype=scores.dtype, device=scores.device)
    compared = torch.empty_like(scores) if work is None else work[: scores.numel()].view(scores.shape)
    greater = torch.gt(scores, chosen[:, None], out=compared) @ ones
    equal = torch.eq(scores, chosen[:, None], out=compared) @ ones - 1
    weight = 0.5 if ties == "mean" else 1.0
    return 1 + greater.double() + weight * equal.double()


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `torch.topk` of (users, items) scores gives, to the choice among equals: values and columns (users, k).

    Of interleaved groups of columns only those of the k + 1 highest maxima can hold one of the best. Where the best are
    all different, they are the best of these; rows with equals are given to `topk` as they are.
    """
    items, wanted = scores.shape[1], k + 1
    depth = math.isqrt(items // wanted)  # as many maxima to choose from as columns
    if depth < 4 or scores.device.type != "cpu":
        return torch.topk(scores, k, dim=1)
    groups = items // depth
    inside = groups * depth
    highest = scores.narrow(1, 0, inside).view(len(scores), depth, groups).amax(1)
    chosen = torch.topk(highest, wanted, dim=1, sorted=False).indices
    columns = torch.cat(
        [
            (chosen[:, None] + torch.arange(0, inside, groups)[:, None]).flatten(1),
            torch.arange(inside, items).expand(len(scores), -1),
        ],
        dim=1,
    )
    best = torch.topk(scores.gather(1, columns), wanted, dim=1)
    values, columns = best.values[:, :k], columns.gather(1, best.indices[:, :k])
    equals = (best.values[:, 1:] == best.values[:, :-1]).any(1)
    if bool(equals.any()):
        whole = torch.topk(scores[equals], k, dim=1)
        values, columns = values.clone(), columns.clone()
        values[equals], columns[equals] = whole.values, whole.indices
    return values, columns
