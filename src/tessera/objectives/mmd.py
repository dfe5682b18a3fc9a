"""Maximum mean discrepancy: whether two clouds of vectors are alike, whoever stands where in them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def mmd(x: Tensor, y: Tensor, alpha: float = 0.5) -> Tensor:
    """Squared maximum mean discrepancy under one Gaussian kernel k of adaptive width, as MME-SID (CIKM 2025) takes it:

    1 / (n (n - 1)) sum over i != j of (k(x_i, x_j) + k(y_i, y_j)) - 2 / n^2 sum over i, j of k(x_i, y_j) + 2 / (n - 1),
    where k(a, b) = exp(-|a - b|^2 / (2 s^2)) and s^2 = alpha times the mean squared distance of all (2n)^2 pairs, which
    carries no gradient. The last term moves nothing. Rows of either cloud may be in any order: nothing here says that
    x_i is to be y_i, so a reconstruction judged by it alone need not know its items.

    Squared distances come from products, |a|^2 + |b|^2 - 2 a.b, in at least float32: 3 n^2 numbers, not 4 n^2 dim.

    Args:
        x: (n, dim) one cloud; 500 rows and more, as the width of the kernel follows the batch.
        y: (n, dim) the other.
        alpha: width of the kernel.
    Returns:
        () the discrepancy.
    Raises:
        ValueError: fewer than two rows, or clouds of unlike sizes.
    """
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"clouds of shapes {tuple(x.shape)} and {tuple(y.shape)}: expected the same, of two rows or more"
        )
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        n = len(x)
        # distances do not change with the origin, and near the middle products lose fewer digits
        middle = (x.detach().to(dtype).mean(0) + y.detach().to(dtype).mean(0)) / 2
        x, y = x.to(dtype) - middle, y.to(dtype) - middle
        x_sizes, y_sizes = x.square().sum(1), y.square().sum(1)
        # the mean over pairs of F = [X; Y] is 2 (mean |f|^2 - |mean f|^2), and the mean of F is zero here
        mean_distance = (x_sizes.detach().sum() + y_sizes.detach().sum()) / n
        factor = -1 / (2 * alpha * mean_distance.clamp(min=torch.finfo(dtype).tiny))

        def kernel(a: Tensor, b: Tensor, a_sizes: Tensor, b_sizes: Tensor) -> Tensor:
            distances = torch.addmm(a_sizes[:, None] + b_sizes, a, b.T, alpha=-2).clamp(min=0)
            return (distances * factor).exp()

        within_x, within_y = kernel(x, x, x_sizes, x_sizes), kernel(y, y, y_sizes, y_sizes)
        within = within_x.sum() - within_x.trace() + within_y.sum() - within_y.trace()
        return within / (n * (n - 1)) - 2 * kernel(x, y, x_sizes, y_sizes).mean() + 2 / (n - 1)


Kernel = Literal["gaussian_multi", "gaussian", "laplacian", "linear", "cosine"]
_OCTAVES = 5
"""Gaussians of `gaussian_multi`: s^2 is 1/8, 1/4, 1/2, 1 and 2 times the mean squared distance (PAD's code)."""


def kernel_mmd(x: Tensor, y: Tensor, kernel: Kernel = "gaussian_multi") -> Tensor:
    """Squared maximum mean discrepancy of two clouds, the mean of k over all pairs (biased, never negative):

    1 / n^2 sum k(x_i, x_j) + 1 / m^2 sum k(y_i, y_j) - 2 / (n m) sum k(x_i, y_j).

    With s^2 the mean squared distance of all (n + m)^2 pairs, without gradient, k(a, b) is

    - `gaussian_multi`: the sum of exp(-|a - b|^2 / (2 c s^2)) over c = 1/8, 1/4, 1/2, 1, 2 (PAD, SIGIR 2025);
    - `gaussian`: exp(-|a - b|^2 / (2 s^2)); `laplacian`: exp(-|a - b| / s), with Euclidean distances;
    - `linear`: a.b, which compares means alone; `cosine`: that of unit vectors.

    Gaussian and Laplacian kernels are characteristic: only equal distributions have the discrepancy 0. Nothing larger
    than n m is made: distances come from products, the five Gaussians from squares of the widest.

    Args:
        x: (n, dim) one cloud.
        y: (m, dim) the other.
        kernel: k.
    Returns:
        () the discrepancy, in at least float32.
    Raises:
        ValueError: a cloud without a row, or clouds of unlike widths.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"clouds of shapes {tuple(x.shape)} and {tuple(y.shape)}: expected rows of the same width")
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.to(dtype), y.to(dtype)
        if kernel == "cosine":
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        if kernel in ("linear", "cosine"):  # the mean of products is the product of means
            return (x.mean(0) - y.mean(0)).square().sum()
        rows = len(x) + len(y)
        middle = (x.detach().sum(0) + y.detach().sum(0)) / rows
        x, y = x - middle, y - middle
        x_sizes, y_sizes = x.square().sum(1), y.square().sum(1)
        mean_distance = 2 * (x_sizes.detach().sum() + y_sizes.detach().sum()) / rows
        mean_distance = mean_distance.clamp(min=1e-12)  # the slope of five squared kernels stays a number

        def mean(a: Tensor, b: Tensor, a_sizes: Tensor, b_sizes: Tensor) -> Tensor:
            distances = torch.addmm(a_sizes[:, None] + b_sizes, a, b.T, alpha=-2) / mean_distance
            if kernel == "laplacian":  # no root of zero, whose slope is infinite
                return (-distances.clamp(min=torch.finfo(dtype).eps).sqrt()).exp().mean()
            distances = distances.clamp(min=0)
            if kernel == "gaussian":
                return (distances / -2).exp().mean()
            value = (distances / -4).exp()
            total = value.mean()
            for _ in range(_OCTAVES - 1):
                value = value.square()
                total = total + value.mean()
            return total

        return mean(x, x, x_sizes, x_sizes) + mean(y, y, y_sizes, y_sizes) - 2 * mean(x, y, x_sizes, y_sizes)
