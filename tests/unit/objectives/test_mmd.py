"""Maximum mean discrepancy against its definition, term by term."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from tessera.objectives.mmd import Kernel, kernel_mmd, mmd


def by_differences(x: Tensor, y: Tensor, alpha: float = 0.5) -> Tensor:
    """The estimator from differences of all pairs, as it is published."""
    n = len(x)
    both = torch.cat([x, y])
    distances = (both[:, None] - both[None]).square().sum(-1)
    kernel = torch.exp(-distances / (2 * alpha * distances.mean().detach()))
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total = total + (kernel[i, j] + kernel[n + i, n + j]) / (n * (n - 1))
            total = total - 2 * kernel[i, n + j] / n**2
    return total + 2 / (n - 1)


def clouds(n: int = 12, dim: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, dim, dtype=dtype) + 3, 2 * torch.randn(n, dim, dtype=dtype)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_value_and_gradient_are_those_of_the_definition(alpha: float) -> None:
    x, y = (cloud.requires_grad_() for cloud in clouds())
    ours, theirs = mmd(x, y, alpha), by_differences(x, y, alpha)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(theirs, (x, y)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_equal_clouds_have_the_value_of_the_closed_form() -> None:
    x, _ = clouds(64, 64)
    distances = (x[:, None] - x[None]).square().sum(-1)
    kernel = torch.exp(-distances / distances.mean())
    apart = float(kernel.sum() - kernel.trace())
    expected = 2 * apart / (64**2 * 63) + 2 / (64 * 63)
    # 2 S / (n (n - 1)) - 2 (S + n) / n^2 + 2 / (n - 1) is this after two lines of algebra
    assert float(mmd(x, x)) == pytest.approx(expected, rel=1e-10)
    assert 0.011 < expected < 0.013


def test_the_order_of_rows_says_nothing() -> None:
    x, y = clouds()
    shuffled = y[torch.randperm(len(y))]
    assert not torch.equal(shuffled, y)
    assert float(mmd(x, y)) == pytest.approx(float(mmd(x, shuffled)), rel=1e-12)


def test_gradients_pass_gradcheck_where_the_width_is_fixed() -> None:
    # the width follows the clouds without gradient, so numeric derivatives are taken along moves that keep it
    x, y = (cloud.requires_grad_() for cloud in clouds(6, 3))
    (gradient,) = torch.autograd.grad(mmd(x, y), x)
    both = torch.cat([x, y]).detach()
    pull = 2 * (x.detach() - both.mean(0)) / len(both)  # gradient of the mean squared distance, up to a factor
    move = torch.randn_like(pull)
    move -= pull * (move * pull).sum() / pull.square().sum()
    step = 1e-5
    numeric = (mmd(x.detach() + step * move, y) - mmd(x.detach() - step * move, y)) / (2 * step)
    assert float(numeric) == pytest.approx(float((gradient * move).sum()), rel=1e-5)


def test_far_from_the_origin_float32_keeps_its_digits() -> None:
    x, y = clouds()
    exact = float(mmd(x, y))
    assert float(mmd((x + 1000).float(), (y + 1000).float())) == pytest.approx(exact, abs=1e-4)


def test_one_vector_everywhere_is_no_division_by_zero() -> None:
    same = torch.ones(4, 3, requires_grad=True)
    value = mmd(same, torch.ones(4, 3))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize(("left", "right"), [((1, 3), (1, 3)), ((4, 3), (5, 3)), ((4, 3), (4, 2))])
def test_wrong_shapes_are_told(left: tuple[int, int], right: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected the same, of two rows or more"):
        mmd(torch.zeros(left), torch.zeros(right))


# ---------------------------------------------------------------- kernels

KERNELS = get_args(Kernel)


def value(kernel: str, a: Tensor, b: Tensor, square: Tensor) -> Tensor:
    """k(a, b) as it is defined, for two rows; `square` is the mean squared distance of all pairs."""
    distance = (a - b).square().sum()
    if kernel == "gaussian_multi":
        return sum((torch.exp(-distance / (2 * 2.0**octave * square)) for octave in range(-3, 2)), torch.zeros(()))
    if kernel == "gaussian":
        return torch.exp(-distance / (2 * square))
    if kernel == "laplacian":
        return torch.exp(-distance.clamp(min=1e-30).sqrt() / square.sqrt())
    return (a * b).sum() if kernel == "linear" else (a * b).sum() / (a.norm() * b.norm())


def by_pairs(x: Tensor, y: Tensor, kernel: str) -> Tensor:
    """The mean over pairs, a pair at a time."""
    both = torch.cat([x, y]).detach()
    square = (both[:, None] - both[None]).square().sum(-1).mean()

    def mean(left: Tensor, right: Tensor) -> Tensor:
        return sum((value(kernel, a, b, square) for a in left for b in right), torch.zeros(())) / len(left) / len(right)

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_is_its_definition_with_its_gradients(kernel: Kernel) -> None:
    x, y = (cloud.requires_grad_() for cloud in (clouds(7, 4)[0], clouds(9, 4)[1]))
    ours, plain = kernel_mmd(x, y, kernel), by_pairs(x, y, kernel)
    assert float(ours) == pytest.approx(float(plain), rel=1e-6, abs=1e-7)
    for a, b in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(plain, (x, y)), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rows", [2, 3, 64])
def test_clouds_in_one_point_have_gradients_that_are_numbers(kernel: Kernel, rows: int) -> None:
    x = torch.zeros(rows, 4, requires_grad=True)
    value = kernel_mmd(x, torch.zeros(3, 4), kernel)
    value.backward()
    assert torch.isfinite(value)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_cloud_is_no_distance_away(kernel: Kernel) -> None:
    x, _ = clouds(20, 4)
    assert float(kernel_mmd(x, x[torch.randperm(20)], kernel)) == pytest.approx(0, abs=1e-7)


def test_only_characteristic_kernels_see_more_than_means() -> None:
    """Two clouds of the same mean, one twice as wide."""
    torch.manual_seed(0)
    x = torch.randn(400, 3, dtype=torch.float64)
    x = x - x.mean(0)
    seen = {kernel: float(kernel_mmd(x, 3 * x, kernel)) for kernel in KERNELS}
    assert seen["linear"] == pytest.approx(0, abs=1e-12)
    assert seen["cosine"] == pytest.approx(0, abs=1e-12)
    assert min(seen[kernel] for kernel in ("gaussian_multi", "gaussian", "laplacian")) > 0.01


@pytest.mark.parametrize("kernel", KERNELS)
def test_clouds_of_one_vector_have_finite_gradients(kernel: Kernel) -> None:
    same = torch.ones(4, 3, requires_grad=True)
    kernel_mmd(same, torch.ones(5, 3), kernel).backward()
    assert torch.isfinite(same.grad).all()
    x, y = clouds(8, 3, torch.float32)
    x.requires_grad_()
    moved = kernel_mmd(x, torch.zeros_like(y), kernel)
    moved.backward()
    assert math.isfinite(moved.item())
    assert torch.isfinite(x.grad).all()


def test_wrong_clouds_of_kernels_are_told() -> None:
    for shape in ((4, 2), (0, 3), (4,)):
        with pytest.raises(ValueError, match="expected rows of the same width"):
            kernel_mmd(torch.zeros(4, 3), torch.zeros(shape))
