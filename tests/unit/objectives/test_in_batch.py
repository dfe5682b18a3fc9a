"""The contrast within a batch: cross-entropy by hand, what is no negative left out, further negatives of one's own."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tessera.objectives.in_batch import in_batch


def by_hand(
    q: Tensor, p: Tensor, t: float, same: Tensor, n: Tensor | None = None, absent: Tensor | None = None
) -> float:
    """One query at a time, in plain numbers."""
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    losses = []
    for i in range(len(q)):
        scores = [math.exp(float(unit(q[i].numpy()) @ unit(p[i].numpy())) / t)]
        for j in range(len(p)):
            if j != i and not same[i, j]:
                scores.append(math.exp(float(unit(q[i].numpy()) @ unit(p[j].numpy())) / t))
        for k in range(n.shape[1] if n is not None else 0):
            assert n is not None
            if absent is None or not absent[i, k]:
                scores.append(math.exp(float(unit(q[i].numpy()) @ unit(n[i, k].numpy())) / t))
        losses.append(-math.log(scores[0] / sum(scores)))
    return float(np.mean(losses))


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_it_is_what_it_says() -> None:
    q, p, n = rows(5, 4), rows(5, 4).flip(0), rows(5, 2, 4)
    none = torch.zeros(5, 5, dtype=torch.bool)
    same = none.clone()
    same[0, 3] = same[3, 0] = same[4, 4] = True
    absent = torch.tensor([[True, True], [False, True], [False, False], [True, False], [False, False]])
    assert math.isclose(float(in_batch(q, p, 0.3, none)), by_hand(q, p, 0.3, none), rel_tol=1e-9)
    assert math.isclose(float(in_batch(q, p, 0.3, same)), by_hand(q, p, 0.3, same), rel_tol=1e-9)
    assert math.isclose(float(in_batch(q, p, 0.3, same, n, absent)), by_hand(q, p, 0.3, same, n, absent), rel_tol=1e-9)


def test_a_target_that_says_the_same_is_no_negative() -> None:
    q, p = rows(4, 3).requires_grad_(), rows(4, 3)
    p = torch.stack([p[0], p[1], p[0], p[3]]).requires_grad_()
    same = (torch.arange(4)[:, None] % 4 == torch.arange(4)) | torch.tensor(
        [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    ).bool()
    in_batch(q, p, 0.05, same)[None].sum().backward()
    alone = rows(4, 3).requires_grad_()
    in_batch(alone[[0, 1, 3]], p.detach()[[0, 1, 3]], 0.05, torch.zeros(3, 3, dtype=torch.bool)).mul(3 / 4).backward()
    assert alone.grad is not None
    assert q.grad is not None
    # the first query is pushed from no copy of its own target: its gradient is that of a batch without the copy
    torch.testing.assert_close(q.grad[0], alone.grad[0])


def test_an_absent_negative_is_none_whatever_stands_there() -> None:
    q, p = rows(3, 4), rows(3, 4).flip(1)
    none, absent = torch.zeros(3, 3, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)
    # the positive itself in its place would be the worst: it is left out
    torch.testing.assert_close(in_batch(q, p, 0.1, none, p[:, None], absent), in_batch(q, p, 0.1, none))
    assert in_batch(q, p, 0.1, none, p[:, None], ~absent) > in_batch(q, p, 0.1, none) + 0.1
