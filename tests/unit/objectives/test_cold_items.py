"""Losses that leave items without a training interaction out: these are no negatives, and nothing moves them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tessera.objectives.catalogue import catalogue_loss
from tessera.settings.losses.base import LossSettings
from tessera.settings.losses.bce import BCE
from tessera.settings.losses.bpr import BPR
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.losses.gbce import GBCE
from tessera.settings.losses.sampled_softmax import SampledSoftmax

POPULARITY = torch.tensor([0, 4, 0, 2, 0, 0, 9, 1, 0, 3])
COLD = [2, 4, 5, 8]
HISTORIES = torch.tensor([[1, 3, 6, 0], [7, 9, 1, 3]])
TARGETS, OWNERS = torch.tensor([3, 6, 9, 1, 3]), torch.tensor([0, 0, 1, 1, 1])
KINDS = [
    CrossEntropy(), GBCE(negatives=64), GBCE(negatives=64, shared=True), BCE(negatives=16), BPR(negatives=16),
    *(SampledSoftmax(negatives=64, distribution=d) for d in ("uniform", "popularity", "mixed")),
]  # fmt: skip


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    return states, torch.randn(10, 8, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("settings", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("how", ["negatives", "left_out"])
def test_what_is_left_out_is_not_moved(settings: LossSettings, how: str) -> None:
    states, vectors = drawn()
    chosen = type(settings).model_validate({**settings.model_dump(), "cold_items": how})
    torch.manual_seed(3)
    catalogue_loss(chosen, POPULARITY)(states, vectors, TARGETS, OWNERS, HISTORIES).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    moved = vectors.grad.abs().sum(1) > 0
    assert moved[[1, 3, 6, 9]].all()
    popular = getattr(settings, "distribution", "") == "popularity"  # which never draws a cold item
    assert bool(moved[COLD].any()) == (how == "negatives" and not popular)


def test_the_loss_is_that_of_the_known_items() -> None:
    states, vectors = drawn()
    loss = catalogue_loss(CrossEntropy(cold_items="left_out"), POPULARITY)
    known = [1, 3, 6, 7, 9]
    place = torch.tensor([known.index(int(target)) for target in TARGETS])
    expected = F.cross_entropy(states @ vectors[known].T, place, reduction="sum")
    torch.testing.assert_close(loss(states, vectors, TARGETS, OWNERS, HISTORIES), expected)


@pytest.mark.parametrize("settings", KINDS, ids=lambda kind: kind.kind)
def test_without_cold_items_nothing_differs(settings: LossSettings) -> None:
    states, vectors = drawn()
    found = []
    for how in ("negatives", "left_out"):
        chosen = type(settings).model_validate({**settings.model_dump(), "cold_items": how})
        torch.manual_seed(3)
        made = catalogue_loss(chosen, POPULARITY.clamp(min=1))
        found.append(float(made(states, vectors, TARGETS, OWNERS, HISTORIES)))
    assert found[0] == found[1]
