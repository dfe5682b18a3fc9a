"""Losses of modalities: drawn at their rates, by seed, item and key alone, and never of what is not there."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tessera.recommenders.availability import drawn, drawn_rates, item_thresholds, keys_of, lost_items
from tessera.settings.missing import ITEM_PATTERNS, MODALITIES, Modality, Pattern

PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
BOTH: tuple[Modality, ...] = ("image", "text")
ITEMS = 4000


def world(rows: int = 600, length: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Histories of several lengths, what their items have, and keys of the rows."""
    generator = torch.Generator().manual_seed(3)
    items = torch.randint(1, ITEMS + 1, (rows, length), generator=generator)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    items[torch.arange(length) >= lengths] = 0
    available = torch.rand(ITEMS + 1, 2, generator=generator) < 0.9
    return items, available, torch.arange(1, rows + 1)


def lost(pattern: Pattern, rates: tuple[float, float] = (0.3, 0.3), seed: int = 0) -> tuple[Tensor, Tensor]:
    """(batch, length, 2) what is lost where everything was there, and (batch, length) where there is an item."""
    items, available, keys = world()
    there = drawn(
        pattern, torch.tensor(rates, dtype=torch.float64), items, torch.ones_like(available), keys, seed, BOTH
    )
    return ~there, items > 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_lost_is_the_rate_of_what_is_there(pattern: Pattern) -> None:
    one_rate = pattern in {"same_rate", "one_modality"}
    rates = (0.3, 0.3) if one_rate else (0.3, 0.7)
    missed, real = lost(pattern, rates)
    shares = missed[real].double().mean(0)
    expected = torch.tensor([0.15, 0.15] if pattern == "one_modality" else rates, dtype=torch.float64)
    # whole histories and stretches of them are few draws
    slack = 0.06 if pattern in {"whole_modality", "block"} else 0.02
    torch.testing.assert_close(shares, expected, rtol=0, atol=slack)
    assert not missed[~real].any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_at_rate_zero_and_everything_at_one(pattern: Pattern) -> None:
    assert not lost(pattern, (0.0, 0.0))[0].any()
    missed, real = lost(pattern, (1.0, 1.0))
    if pattern == "one_modality":
        assert (missed[real].sum(1) == 1).all()
    else:
        assert missed[real].all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_lost_at_one_rate_is_lost_at_every_higher_one(pattern: Pattern) -> None:
    before = lost(pattern, (0.0, 0.0))[0]
    for step in range(1, 11):
        missed = lost(pattern, (step / 10, step / 10))[0]
        assert (missed | ~before).all()
        assert int(missed.sum()) > int(before.sum())
        before = missed


@pytest.mark.parametrize("pattern", PATTERNS)
def test_batches_order_and_reading_less_of_a_history_change_nothing(pattern: Pattern) -> None:
    items, available, keys = world()
    rates = torch.tensor([0.4, 0.4])

    def there(rows: Tensor | slice, width: int) -> Tensor:
        return drawn(pattern, rates, items[rows][:, :width], available, keys[rows], 5, BOTH)

    whole = there(slice(None), 20)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    assert torch.equal(there(order, 20), whole[order])
    short = (items > 0).sum(1) <= 7
    assert torch.equal(there(short, 7), whole[short][:, :7])
    left = items.flip(1)[:50]  # padding on the left, the same items the other way round
    turned = drawn(pattern, rates, left, available, keys[:50], 5, BOTH)
    assert torch.equal(turned[left == 0], available[:1].expand(int((left == 0).sum()), 2))
    if pattern not in {"block"}:  # a stretch is one of the history as it is read
        full = (items > 0).all(1)
        ends = drawn(pattern, rates, items[full][:, -5:], available, keys[full], 5, BOTH)
        assert torch.equal(ends, whole[full][:, -5:])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_seeds_and_keys_draw_anew_and_items_lose_the_same_everywhere(pattern: Pattern) -> None:
    items, available, keys = world()
    rates = torch.tensor([0.5, 0.5])
    first = drawn(pattern, rates, items, available, keys, 0, BOTH)
    assert torch.equal(first, drawn(pattern, rates, items, available, keys, 0, BOTH))
    assert not torch.equal(first, drawn(pattern, rates, items, available, keys, 1, BOTH))
    other_keys = drawn(pattern, rates, items, available, keys + 10_000, 0, BOTH)
    assert torch.equal(first, other_keys) == (pattern in ITEM_PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_an_item_lacks_stays_lacking(pattern: Pattern) -> None:
    items, available, keys = world()
    there = drawn(pattern, torch.tensor([0.3, 0.3]), items, available, keys, 0, BOTH)
    assert not (there & ~available[items]).any()
    assert torch.equal(there[items == 0], available[:1].expand(int((items == 0).sum()), 2))


def test_the_forms_of_the_patterns() -> None:
    missed, real = lost("whole_modality", (0.5, 0.5))
    shares = (missed & real[:, :, None]).sum(1) / real.sum(1)[:, None]
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    missed, real = lost("same_steps", (0.5, 0.5))
    assert torch.equal(missed[:, :, 0], missed[:, :, 1])
    for pattern in ("feature", "same_rate"):
        missed, real = lost(pattern, (0.5, 0.5))
        together = missed[real].all(1).double().mean()
        assert abs(float(together) - 0.25) < 0.02  # modalities are independent
        assert abs(float(np.corrcoef(missed[:, 0, 0], missed[:, 1, 0])[0, 1])) < 0.15  # so are positions
    missed, real = lost("block", (0.4, 0.4))
    assert torch.equal(missed[:, :, 0], missed[:, :, 1])
    edges = torch.nn.functional.pad(missed[:, :, 0].int(), (1, 1)).diff(dim=1).clamp(min=0).sum(1)
    assert set(edges.unique().tolist()) <= {0, 1}  # one stretch at most
    sizes, whole = missed[:, :, 0].sum(1), 0.4 * real.sum(1)
    assert ((sizes - whole).abs() < 1).all()
    choice = item_thresholds("one_modality", 0, ITEMS, BOTH) < 0.6
    assert (choice.sum(1) <= 1).all()
    assert abs(float(choice[:, 0].double().mean()) - 0.3) < 0.03


def test_items_lose_what_they_lost_before_patterns_had_names() -> None:
    rates: dict[Modality, float] = {"image": 0.4, "text": 0.25}
    made = lost_items("item_consistent", rates, 7, 300)
    for number, name in enumerate(MODALITIES):
        expected = np.random.default_rng((7, number)).random(301) < rates[name]
        np.testing.assert_array_equal(made[name], expected)
    # the column's place does not count, its name does
    text_first = item_thresholds("item_consistent", 7, 300, ("text", "image"))
    torch.testing.assert_close(text_first.flip(1), item_thresholds("item_consistent", 7, 300, BOTH), rtol=0, atol=0)


def test_rates_of_rows() -> None:
    keys = torch.arange(5000)
    apart, shared = (drawn_rates(pattern, keys, 1, BOTH) for pattern in ("feature", "same_rate"))
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert abs(float(np.corrcoef(apart[:, 0], apart[:, 1])[0, 1])) < 0.05
    for column in (*apart.T, shared[:, 0]):
        counts = np.histogram(column, 10, (0, 1))[0]
        assert counts.min() > 400
        assert counts.max() < 600
    items, available, _ = world()
    rates = drawn_rates("feature", keys[: len(items)], 1, BOTH)
    missed = ~drawn("feature", rates, items, torch.ones_like(available), keys[: len(items)], 1, BOTH)
    heavy = (items > 0) & (rates[:, :1] > 0.8)
    assert float(missed[heavy][:, 0].double().mean()) > 0.85


def test_keys_mix_what_they_are_given() -> None:
    users = torch.arange(1000)
    keys = keys_of(users, 3, 5)
    assert len(keys.unique()) == 1000
    assert not torch.equal(keys, keys_of(users, 5, 3))
    torch.testing.assert_close(keys, keys_of(users, torch.tensor(3), torch.full((1000,), 5)))
    # SplitMix64 of 0, as published with the generator
    assert int(keys_of(torch.zeros((), dtype=torch.int64))) % 2**64 == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("rates", [(0.1, 1.2), (-0.1, 0.5), (float("nan"), 0.5)])
def test_rates_outside_are_refused(rates: tuple[float, float]) -> None:
    items, available, keys = world(4)
    with pytest.raises(ValueError, match="rates from 0 to 1"):
        drawn("feature", torch.tensor(rates), items, available, keys, 0, BOTH)


def test_shapes_that_do_not_fit_are_refused() -> None:
    items, available, keys = world(4)
    with pytest.raises(ValueError, match="do not fit 2 modalities"):
        drawn("feature", torch.tensor([0.1]), items, available, keys, 0, ("image",))
    with pytest.raises(ValueError, match="pattern of histories"):
        item_thresholds("feature", 0, 5, BOTH)
