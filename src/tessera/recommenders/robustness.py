"""What a damaged pass beside a whole one brings: attention that can be looked at, and how both passes are compared.

Everything here is zero, to the bit, where both passes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.item_encoders.base import View
from tessera.training.phases import Position

# ---------------------------------------------------------------- attention


class Maps:
    """Attention of the last layers in one pass."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        """(batch, heads, length, length) each, before any mask."""


@contextmanager
def watched(backbone: Backbone, maps: Maps | None) -> Iterator[None]:
    """Write the last layers' attention to `maps` while the backbone reads; None watches nothing."""
    hooks = []
    for block in backbone.attends() if maps is not None else []:

        def write(_: nn.Module, __: object, projected: Tensor, heads: int = block.heads) -> None:
            assert maps is not None
            query, key, _value = projected.chunk(3, dim=2)
            split = [x.view(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2) for x in (query, key)]
            maps.logits.append(split[0] @ split[1].transpose(2, 3) / split[0].shape[-1] ** 0.5)

        hooks.append(block.project_in.register_forward_hook(write))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attention_divergence(student: Maps, teacher: Maps, real: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over positions of KL(teacher, student), the mean over heads, and how many positions; causal, padding hidden.

    Args:
        student: with gradients.
        teacher: gets none.
        real: (rows, length) bool, the positions of the first rows that count; all that they see are items.
    """
    length = real.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    total = real.new_zeros((), dtype=torch.float32)
    for own, wanted in zip(student.logits, teacher.logits, strict=True):
        asked, given = (
            logits[: len(real)].float().masked_fill(~causal, -torch.inf).log_softmax(3)
            for logits in (own, wanted.detach())
        )
        apart = (given.exp() * (given - asked).masked_fill(~causal, 0)).sum(3).mean(1)
        total = total + (apart * real).sum()
    return total / max(1, len(student.logits)), real.sum().to(torch.float32)


# ---------------------------------------------------------------- states and scores


def direction_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of 1 - cosine, as half the squared distance of directions: zero to the bit where both are equal."""
    own, wanted = F.normalize(student.float(), dim=1), F.normalize(teacher.detach().float(), dim=1)
    return 0.5 * (own - wanted).square().sum()


def score_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum over rows of T² KL(softmax(teacher / T), softmax(student / T)), of scores (rows, items)."""
    own = (student.float() / temperature).log_softmax(1)
    wanted = (teacher.detach().float() / temperature).log_softmax(1)
    return temperature**2 * (wanted.exp() * (wanted - own)).sum()


def some_items(items: int, most: int, seed: int, at: Position) -> np.ndarray:
    """(n,) ids whose scores are compared, the same in all processes of a step."""
    if items <= most:
        return np.arange(1, items + 1)
    return np.sort(np.random.default_rng((seed, at.epoch, at.step)).choice(items, most, replace=False)) + 1


class Reconstruction(nn.Module):
    """What a state says of the views that were taken away."""

    def __init__(self, views: Sequence[View], dim: int) -> None:
        super().__init__()
        one = torch.ones(1, dtype=torch.int64)
        self.heads = nn.ModuleList(nn.Linear(dim, view.rows(one).shape[1]) for view in views)

    def forward(self, views: Sequence[View], away: Tensor, states: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the smooth L1 losses, each the mean over a row's width, and how many rows of tables were asked for.

        Args:
            views: with what is really there.
            away: (positions, views) bool: what the damage took.
            states: (positions, dim) of the damaged pass.
            items: (positions,) what stands there.
        """
        total, count = states.new_zeros((), dtype=torch.float32), away.new_zeros((), dtype=torch.float32)
        for number, (head, view) in enumerate(zip(self.heads, views, strict=True)):
            there = view.present()
            asked = away[:, number] & (there if there.ndim == 1 else there.any(1))[items]
            # an empty choice too: every head has a gradient in every process
            said, rows = head(states[asked]).float(), view.rows(items[asked]).float()
            total = total + F.smooth_l1_loss(said, rows, reduction="sum") / rows.shape[1]
            count = count + asked.sum()
        return total, count
