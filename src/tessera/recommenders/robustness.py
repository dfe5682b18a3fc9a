"""What a damaged pass beside a whole one needs: what is taken away, attention to look at, and how both are compared.

Everything here is zero, to the bit, where both passes are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.availability import drawn, drawn_rates, item_thresholds, keys_of
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.item_encoders.base import View
from tessera.settings.missing import Modality, Pattern
from tessera.settings.systems.cider import Damage
from tessera.training.phases import Position

_KEEP, _SCORED = 7001, 7002
"""Streams of random numbers that say which modality stays where all were drawn, and which items are scored damaged."""


class Sampler:
    """Draws what a step goes without. States of items are numbers: bit m is set where modality m was taken away."""

    def __init__(self, settings: Damage, seed: int, modalities: Sequence[Modality], ids: bool) -> None:
        """
        Args:
            settings: pattern and rates.
            seed: of all draws.
            modalities: what can be lost.
            ids: whether an item is known by more than its modalities, so that it may lose all of them.
        """
        self.settings, self.seed, self.modalities, self.ids = settings, seed, tuple(modalities), ids

    def positions(self, items: Tensor, available: Tensor, at: Position, rows: Tensor) -> Tensor:
        """(batch, length) int64 states of items (batch, length) in a damaged pass.

        Args:
            items: ids, padded on the right with 0.
            available: (items + 1, modalities) bool, what there really is.
            at: where training stands.
            rows: (batch,) which rows of the whole step these are, whatever process has them.
        """
        seed = self._seed(at)
        keys = keys_of(rows, at.epoch, at.step)
        rates = self._rates(self.settings.pattern, keys)
        kept = drawn(self.settings.pattern, rates, items, available, keys, seed, self.modalities)
        lost = available[items] & ~kept
        place = (items > 0).flip(1).long().cumsum(1).flip(1)
        return self._states(lost, kept, keys_of(keys[:, None], place))

    def candidates(self, available: Tensor, at: Position) -> Tensor:
        """(items + 1,) int64 states of items as they are scored; rates are those of the step."""
        pattern: Pattern = "one_modality" if self.settings.pattern == "one_modality" else "item_consistent"
        seed = self._seed(at)
        key = keys_of(torch.full((1,), -1), at.epoch, at.step)
        rates = self._rates("same_rate" if self.settings.pattern == "same_rate" else pattern, key)
        thresholds = item_thresholds(pattern, seed, len(available) - 1, self.modalities)
        keys = keys_of(torch.arange(len(available)), at.epoch, at.step)
        affected = drawn_rates("same_rate", keys, _SCORED, self.modalities[:1]) < self.settings.candidates
        affected[0] = False
        away, keys = ((thresholds < rates) & affected).to(available.device), keys.to(available.device)
        return self._states(available & away, available & ~away, keys)

    def _seed(self, at: Position) -> int:
        return int(np.random.SeedSequence((self.seed, at.epoch, at.step)).generate_state(1)[0])

    def _rates(self, pattern: Pattern, keys: Tensor) -> Tensor:
        """(batch, modalities)."""
        if self.settings.rate is not None:
            return torch.full((len(keys), len(self.modalities)), self.settings.rate, device=keys.device)
        rates = drawn_rates(pattern, keys, self.seed, self.modalities)
        shape = self.settings.concentration
        if shape == 1:
            return rates
        drawn_from = scipy.special.betaincinv(shape, shape, rates.double().cpu().numpy())
        return torch.from_numpy(drawn_from).float().to(keys.device)

    def _states(self, lost: Tensor, kept: Tensor, keys: Tensor) -> Tensor:
        """Numbers of states; where an item would lose all of several modalities, and is nothing else, one stays."""
        count = len(self.modalities)
        if not self.ids and count > 1:
            share = drawn_rates("same_rate", keys.flatten(), _KEEP, self.modalities[:1]).view(keys.shape)
            several = lost.sum(-1)
            nth = (share * several).long().clamp(max=count - 1)
            stays = lost & (lost.long().cumsum(-1) - 1 == nth[..., None])
            bare = ~kept.any(-1)
            lost = lost & ~(stays & bare[..., None])
        powers = 2 ** torch.arange(count, device=lost.device)
        return (lost * powers).sum(-1)


def really_there(
    views: Sequence[View], of_view: Sequence[frozenset[Modality]], modalities: Sequence[Modality]
) -> Tensor:
    """(items + 1, modalities) bool: whether any view says something of an item that losing the modality would take."""
    whole = [rows if rows.ndim == 1 else rows.any(1) for rows in (view.present() for view in views)]
    columns = [
        torch.stack([rows for rows, made_of in zip(whole, of_view, strict=True) if name in made_of]).any(0)
        for name in modalities
    ]
    return torch.stack(columns, 1)


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
            split = [x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key)]
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
