"""Kernelised Stein discrepancy: how unlike vectors are a law of which only the score is known; and a fitted score.

The score of a law is the gradient of its log density. Liu, Lee and Jordan, ICML 2016; denoising score matching after
Vincent, Neural Computation 2011.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""(n, dim) vectors to (n, dim) gradients of the log density there."""

_NARROWEST, _WIDEST = 0.1, 10.0
"""Bounds of a bandwidth, for vectors of about unit size an axis: where all are alike, 1 / h^4 would be too large."""


def stein_kernel(x: Tensor, scores: Tensor, bandwidth: Tensor | float) -> Tensor:
    """(n, n) u(x_i, x_j) of a Gaussian kernel k = exp(-|D|^2 / (2 h^2)), D = x_i - x_j:

    k (s_i . s_j + s_i . D / h^2 - s_j . D / h^2 + dim / h^2 - |D|^2 / h^4).

    Its mean over independent x of the law that the scores s are of is 0, whatever h. All terms come from products of
    matrices: nothing of n^2 dim numbers is made.

    Args:
        x: (n, dim).
        scores: (n, dim) at x.
        bandwidth: h.
    """
    rows = x - x.detach().mean(0)  # differences do not change with the origin, and products lose fewer digits
    sizes = rows.square().sum(1)
    distances = torch.addmm(sizes[:, None] + sizes, rows, rows.T, alpha=-2).clamp(min=0)
    along = (scores * rows).sum(1)[:, None] - scores @ rows.T  # s_i . D, whose transpose is -s_j . D
    square = bandwidth**2
    terms = scores @ scores.T + (along + along.T) / square + x.shape[1] / square - distances / square**2
    return (distances / (-2 * square)).exp() * terms


def median_bandwidth(x: Tensor) -> Tensor:
    """() the root of half the median squared distance of x (n, dim), of each pair once; without a gradient."""
    x = x.detach()
    rows = x - x.mean(0)
    sizes = rows.square().sum(1)
    distances = torch.addmm(sizes[:, None] + sizes, rows, rows.T, alpha=-2)
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return (distances[first, second].clamp(min=0).median() / 2).sqrt().clamp(_NARROWEST, _WIDEST)


def stein_discrepancy(x: Tensor, score: Score, bandwidth: Tensor | float | None = None) -> Tensor:
    """Squared kernelised Stein discrepancy of vectors to a law, the mean of u over all pairs of different rows.

    It is an unbiased estimate: about 0, of either sign, where the vectors are of the law. Gradients go through the
    score too: it differs from place to place.

    Args:
        x: (n, dim).
        score: of the law.
        bandwidth: of the kernel; None takes the median's.
    Returns:
        () in at least float32.
    Raises:
        ValueError: fewer than two rows.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"vectors of shape {tuple(x.shape)}: expected two rows or more")
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        kernel = stein_kernel(x, score(x).to(x.dtype), median_bandwidth(x) if bandwidth is None else bandwidth)
        return (kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


def score_matching(x: Tensor, score: Score, noise: Tensor, size: float) -> Tensor:
    """Denoising score matching: mean of |size s(x + size e) + e|^2 an axis, e the noise.

    The score that makes it least is that of the law of x + size e. It is bounded below, unlike a discrepancy that the
    score itself is fitted by.

    Args:
        x: (n, dim) of the law; they get no gradient.
        score: what is fitted.
        noise: (n, dim) e, standard normal.
        size: standard deviation of what is added.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        noise = noise.to(x.dtype)
        return (size * score(x + size * noise) + noise).square().mean()
