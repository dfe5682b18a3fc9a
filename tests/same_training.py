"""Weights of two trainings that differ in rounding alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def assert_same_training(one: Mapping[str, Tensor], two: Mapping[str, Tensor], rate: float) -> None:
    """Nearly all weights are the same, and none is far off.

    Adam makes whole steps of gradients that are rounding errors, and which these are depends on the processor: a stray
    weight may differ by some steps. Where a gradient is wrong, most weights differ by a step or more.

    Args:
        one: weights by name.
        two: of the same names and shapes.
        rate: the learning rate, the size of a step.
    """
    assert one.keys() == two.keys()
    for name, value in one.items():
        gap = ((two[name].double() - value.double()).abs() / (1 + value.double().abs())).flatten()
        assert gap.max() < 5 * rate, (name, float(gap.max()))
        # of a few weights one may be the stray one
        assert gap.quantile(0.95, interpolation="lower") < 2e-4, (name, float(gap.quantile(0.95)))
