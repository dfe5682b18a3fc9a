"""What a damaged pass goes without, and the vectors of its items: each whole, and once in every state that occurs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
import torch
import torch.distributed
from torch import Tensor

from tessera.recommenders.availability import drawn, drawn_rates, item_thresholds, keys_of
from tessera.recommenders.item_encoders.base import ItemEncoder, View
from tessera.recommenders.item_encoders.parts import of_all_processes
from tessera.settings.missing import MODALITIES, Modality, Pattern
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


class Damaged(NamedTuple):
    """The items of a step, whole and damaged."""

    again: Tensor
    """(rows, length) the histories that are read again."""
    states: Tensor
    """(rows, length - 1) what their items have lost; the last one is never read."""
    vectors: Tensor
    """(items + 1, dim) whole."""
    made: Tensor
    """(vectors, dim) those, and the damaged ones behind them."""
    read: Tensor
    """(rows, length) which of `made` stands where."""
    scored: Tensor
    """(items + 1, dim) items as the damaged pass scores them."""


class DamagedItems:
    """An item encoder under the losses of a step."""

    def __init__(
        self, settings: Damage, items: ItemEncoder, made_of: Mapping[str, Collection[str]], count: int, seed: int
    ) -> None:
        """
        Args:
            settings: what is lost.
            items: the encoder.
            made_of: by table, the modalities that it is made from.
            count: items, and one for the padding.
            seed: of all draws.
        Raises:
            ValueError: nothing that the encoder reads is made from a picture or a text.
        """
        self.settings, self.items, self.count = settings, items, count
        self.names = list(items.views())
        tables = [view.table for view in items.views().values()]
        self.of_view = [frozenset(name for name in MODALITIES if name in made_of.get(table, ())) for table in tables]
        self.modalities: tuple[Modality, ...] = tuple(
            name for name in MODALITIES if any(name in made for made in self.of_view)
        )
        if not self.modalities:
            raise ValueError("nothing that the item encoder reads is made from pictures or texts: nothing can be lost")
        self.sampler = Sampler(settings, seed, self.modalities, ids=bool(items.item_rows()))

    def views(self) -> list[View]:
        """The tables that the encoder reads."""
        return list(self.items.views().values())

    def available(self) -> Tensor:
        """(items + 1, modalities) bool: what items really have."""
        return really_there(self.views(), self.of_view, self.modalities)

    def draw(self, histories: Tensor, at: Position) -> Damaged:
        """What a step of histories (batch, length) goes without, and the vectors of its items."""
        available, again = self.available(), self._again(histories)
        inputs = again[:, :-1]
        # places count from the end of the whole window, whatever the longest of the batch is
        states = self.sampler.positions(again, available, at, _rows(len(again), again.device))[:, :-1]
        pairs = (states * self.count + inputs).flatten()
        if self.settings.candidates:
            scored = self.sampler.candidates(available, at)
            pairs = torch.cat([pairs, scored * self.count + torch.arange(self.count, device=scored.device)])
        damaged = pairs[pairs >= self.count].unique()  # type: ignore[no-untyped-call]
        with self.items.sharing():
            vectors: Tensor = self.items()
            parts = [vectors]
            for number in (damaged // self.count).unique().tolist():
                with self.items.without(self.away(number)):
                    parts.append(self.items.some(damaged[damaged // self.count == number] % self.count))
        made = torch.cat(parts)
        # whole ones come first, in their order; the others as they were sorted: by state, then by item
        rows_read = torch.where(pairs < self.count, pairs, self.count + torch.searchsorted(damaged, pairs))
        read = torch.cat([rows_read[: inputs.numel()].view(inputs.shape), again[:, -1:]], 1)
        compared = made[rows_read[inputs.numel() :]] if self.settings.candidates else vectors
        return Damaged(again, states, vectors, made, read, compared)

    def away(self, number: int) -> list[str]:
        """The views that go with the modalities of a state."""
        lost = {name for bit, name in enumerate(self.modalities) if number >> bit & 1}
        return [name for name, made_of in zip(self.names, self.of_view, strict=True) if made_of & lost]

    def taken(self, states: Tensor) -> Tensor:
        """(n, views) bool: which views are gone in states (n,)."""
        table = [[name in self.away(number) for name in self.names] for number in range(2 ** len(self.modalities))]
        return torch.tensor(table, device=states.device)[states]

    def _again(self, items: Tensor) -> Tensor:
        """Those of histories (batch, length) that are read again, damaged: the first of the whole step."""
        rows = _rows(len(items), items.device)
        count = math.ceil(self.settings.histories * len(of_all_processes(rows)))
        return items[: int((rows < count).sum())]


def _rows(count: int, device: torch.device) -> Tensor:
    """(count,) which rows of the whole step a process has: they are dealt in turn."""
    rows = torch.arange(count, device=device)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    return rows * torch.distributed.get_world_size() + torch.distributed.get_rank()
