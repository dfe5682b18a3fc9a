"""What a loss of pictures and texts leaves: patterns of missing modalities, drawn by seed, item and key alone.

Nothing here depends on the order of batches, on the device or on how many processes share them. Every draw is a
threshold that is compared with a rate: what is lost at one rate is lost at every higher one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tessera.settings.missing import ITEM_PATTERNS, MODALITIES, Modality, Pattern

_WHERE, _CHOICE, _RATE, _EXTRA = range(101, 105)
"""Streams of random numbers that belong to no modality: those of modalities have their places in `MODALITIES`."""


def drawn(
    pattern: Pattern,
    rates: Tensor,
    items: Tensor,
    available: Tensor,
    keys: Tensor,
    seed: int,
    modalities: Sequence[Modality],
) -> Tensor:
    """What is there of the items of histories after a loss: (batch, length, modalities) bool.

    An item's ID always stays. What an item really lacks stays lacking, and padding stays as `available` has it.

    Args:
        pattern: see `tessera.settings.missing.Pattern`.
        rates: (modalities,) or (batch, modalities) of losses, from 0 (nothing) to 1 (everything); float64 where the
            shares must be a config's to the last bit. `same_rate` is `feature` whose rates are one for all modalities
            (`drawn_rates`).
        items: (batch, length) ids, padding 0 at either end.
        available: (items + 1, modalities) bool, what there is without a loss.
        keys: (batch,) int64, which draw a row gets, as its user or `keys_of` of user and epoch. Patterns of items
            (`ITEM_PATTERNS`) do not read it.
        seed: of all draws.
        modalities: what the columns are; two of one name lose the same.
    Raises:
        ValueError: shapes that do not fit one another, or rates outside of [0, 1].
    """
    columns = available.shape[1]
    if len(modalities) != columns or rates.shape not in {(columns,), (len(items), columns)}:
        raise ValueError(
            f"rates {tuple(rates.shape)} and {len(modalities)} names of modalities do not fit {columns} modalities of "
            f"{len(items)} rows"
        )
    if not bool(((rates >= 0) & (rates <= 1)).all()):
        raise ValueError(f"expected rates from 0 to 1 (got {float(rates.min())} to {float(rates.max())})")
    rates = rates.to(items.device).expand(len(items), columns)
    real = items > 0
    if pattern in ITEM_PATTERNS:
        thresholds = item_thresholds(pattern, seed, len(available) - 1, modalities).to(items.device)[items]
        lost = thresholds < rates[:, None]
    elif pattern == "block":
        lost = _blocks(rates, real, keys.to(items.device), seed)
    else:
        lost = _scattered(pattern, real, keys.to(items.device), seed, modalities) < rates[:, None]
    return available[items] & ~(lost & real[:, :, None])


def lost_items(pattern: Pattern, rates: Mapping[Modality, float], seed: int, items: int) -> dict[Modality, np.ndarray]:
    """Which items lose each modality under a pattern of items, (items + 1,) bool; row 0, the padding, means nothing."""
    thresholds = item_thresholds(pattern, seed, items, tuple(rates)).numpy()
    return {name: thresholds[:, column] < rate for column, (name, rate) in enumerate(rates.items())}


def item_thresholds(pattern: Pattern, seed: int, items: int, modalities: Sequence[Modality]) -> Tensor:
    """(items + 1, modalities) float64: an item has lost a modality at every rate above.

    Under `one_modality` the one that an item never loses is at 2.

    Raises:
        ValueError: the pattern is none of items.
    """
    return torch.from_numpy(_item_thresholds(pattern, seed, items, tuple(modalities)))


@lru_cache(maxsize=16)
def _item_thresholds(pattern: Pattern, seed: int, items: int, modalities: tuple[Modality, ...]) -> np.ndarray:
    def stream(number: int) -> np.ndarray:
        return np.random.default_rng((seed, number)).random(items + 1)

    if pattern == "item_consistent":
        return np.stack([stream(MODALITIES.index(name)) for name in modalities], 1)
    if pattern != "one_modality":
        raise ValueError(f"{pattern} is a pattern of histories, not of items")
    names = sorted(set(modalities), key=MODALITIES.index)
    affected, choice = stream(_WHERE), (stream(_CHOICE) * len(names)).astype(np.int64)
    return np.stack([np.where(choice == names.index(name), affected, 2.0) for name in modalities], 1)


def _scattered(pattern: Pattern, real: Tensor, keys: Tensor, seed: int, modalities: Sequence[Modality]) -> Tensor:
    """Thresholds of positions, (batch, length or 1, modalities); positions are counted from a history's end."""
    place = real.flip(1).long().cumsum(1).flip(1)
    columns = []
    for name in modalities:
        stream = _WHERE if pattern == "same_steps" else MODALITIES.index(name)
        rows = keys_of(keys, seed, stream)
        columns.append(_uniform(rows[:, None] if pattern == "whole_modality" else keys_of(rows[:, None], place)))
    return torch.stack(columns, 2)


def _blocks(rates: Tensor, real: Tensor, keys: Tensor, seed: int) -> Tensor:
    """(batch, length, modalities) positions in a contiguous stretch that grows with the rate; one place for all."""
    sizes = real.sum(1)[:, None]
    extra, where = (_uniform(keys_of(keys, seed, stream))[:, None] for stream in (_EXTRA, _WHERE))
    # so many positions that their expectation is rate x size; `where` keeps longer stretches around shorter ones
    lengths = torch.minimum((rates.double() * sizes + extra.double()).floor().long(), sizes)
    starts = (where.double() * (sizes - lengths + 1)).floor().long()
    place = (real.long().cumsum(1) - 1)[:, :, None]
    return (place >= starts[:, None]) & (place < (starts + lengths)[:, None])


def drawn_rates(pattern: Pattern, keys: Tensor, seed: int, modalities: Sequence[Modality]) -> Tensor:
    """(batch, modalities) uniform rates of rows for training: one for all modalities where the pattern has but one."""
    shared = pattern in {"same_rate", "same_steps", "block", "one_modality"}
    streams = [_RATE if shared else 1000 + MODALITIES.index(name) for name in modalities]
    return torch.stack([_uniform(keys_of(keys, seed, stream)) for stream in streams], 1)


def keys_of(keys: Tensor, *more: int | Tensor) -> Tensor:
    """int64 keys that mix several numbers, as a user's with an epoch's and a step's; their order counts.

    Args:
        keys: of any shape, int64.
        more: whole numbers, or int64 that spread to the shape of the keys.
    """
    mixed = _mix(keys.long())
    for part in more:
        number = part.long() if isinstance(part, Tensor) else _signed(part)
        mixed = _mix(mixed ^ (number * _GOLDEN + 1 if isinstance(number, Tensor) else _signed(number * _GOLDEN + 1)))
    return mixed


def _signed(number: int) -> int:
    """A whole number, as the int64 of the same last 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix(keys: Tensor) -> Tensor:
    """SplitMix64 (Steele, Lea and Flood, 2014): a permutation of int64 whose bits look random."""
    keys = keys + _GOLDEN
    keys = (keys ^ _shifted(keys, 30)) * _FIRST
    keys = (keys ^ _shifted(keys, 27)) * _SECOND
    return keys ^ _shifted(keys, 31)


def _shifted(keys: Tensor, bits: int) -> Tensor:
    """Bits moved to the right, zeros from the left: int64 of torch copies the sign."""
    moved: Tensor = (keys >> bits) & (2 ** (64 - bits) - 1)
    return moved


def _uniform(keys: Tensor) -> Tensor:
    """float32 in [0, 1), exact on every device: the first 24 of mixed bits."""
    return _shifted(keys, 40).float() * 2.0**-24
