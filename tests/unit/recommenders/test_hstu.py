"""HSTU: a unit against its equations, times that are read and that are not, and no time of the target."""

import pytest
import torch
import torch.nn.functional as F
from torch import nan

from tessera.recommenders.backbones.hstu import HSTU, Unit, time_buckets
from tessera.settings.backbones.hstu import HSTUSettings

SETTINGS = HSTUSettings(dim=8, heads=2, max_length=6, dropout=0.0)
VECTORS = torch.randn(21, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
HISTORY = torch.tensor([[3, 7, 1, 20, 4]])
TIMES = torch.tensor([[0.0, 60.0, 3600.0, 86400.0, 1e7]], dtype=torch.float64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = HSTU(SETTINGS).double().eval()
    with torch.no_grad():
        for unit in made.units:
            unit.ages.normal_()  # at the start they are too small to be seen
    return made


def test_a_unit_is_its_equations():
    """Each number by itself: SiLU of products and biases, over the items seen; norm, gate, residual."""
    torch.manual_seed(0)
    unit = Unit(SETTINGS).double().eval()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    buckets = time_buckets(TIMES)
    gate, value, query, key = F.silu(unit.project_in(unit.norm(x)))[0].chunk(4, dim=1)
    read = torch.zeros(5, 8, dtype=torch.float64)
    for t in range(5):
        for s in range(t + 1):
            bias = unit.distances[t - s] + unit.ages[buckets[0, t, s]]
            for head in (slice(0, 4), slice(4, 8)):
                read[t, head] += F.silu(query[t, head] @ key[s, head] + bias) * value[s, head] / (t + 1)
    wanted = x[0] + unit.project_out(gate * unit.read_norm(read))
    torch.testing.assert_close(unit(x, buckets)[0], wanted, atol=1e-12, rtol=1e-10)


def test_buckets_grow_with_what_lies_between_and_know_what_nobody_knows():
    buckets = time_buckets(torch.tensor([[0.0, 0.5, 2.0, 4e7, nan]], dtype=torch.float64))[0]
    assert buckets[0].tolist() == [1, 1, 3, 59, 0]  # 1 + log(2) / 0.301 and 1 + log(4e7) / 0.301, cut
    assert torch.equal(buckets, buckets.T)
    assert time_buckets(torch.tensor([[0.0, 1e30]], dtype=torch.float64)).max() == 128


def test_times_are_read(model):
    with_times = model.encode(HISTORY, torch.tensor([5]), VECTORS, TIMES)
    others = model.encode(HISTORY, torch.tensor([5]), VECTORS, TIMES * torch.linspace(1, 0.1, 5))
    assert not torch.allclose(with_times, others)
    later = model.encode(HISTORY, torch.tensor([5]), VECTORS, TIMES + 1e6)
    torch.testing.assert_close(later, with_times)  # only what lies between


def test_without_times_positions_alone_are_read(model):
    lengths = torch.tensor([5])
    unknown = model.encode(HISTORY, lengths, VECTORS, torch.full_like(TIMES, nan))
    torch.testing.assert_close(unknown, model.encode(HISTORY, lengths, VECTORS))
    assert not torch.allclose(unknown, model.encode(HISTORY, lengths, VECTORS, TIMES))


def test_no_item_and_no_time_from_the_future_is_seen_to_the_bit(model):
    states = model.timed(VECTORS[HISTORY], torch.tensor([5]), TIMES)
    for end in range(1, 5):
        items, times = HISTORY.clone(), TIMES.clone()
        items[:, end:], times[:, end:] = 9, 2e8
        changed = model.timed(VECTORS[items], torch.tensor([5]), times)
        assert torch.equal(states[:, :end], changed[:, :end])


def test_the_time_of_a_target_is_not_read(model):
    """A window predicts as each prefix alone does, to which nobody tells when the next item comes."""
    examples = model.examples(HISTORY, VECTORS, times=TIMES)
    for end, state in enumerate(examples.states, 1):
        alone = model.encode(HISTORY[:, :end], torch.tensor([end]), VECTORS, TIMES[:, :end])
        torch.testing.assert_close(alone[0], state, atol=1e-12, rtol=1e-10)


def test_padding_and_its_unknown_times_change_nothing(model):
    items = F.pad(HISTORY, (0, 1))
    padded = model.encode(items, torch.tensor([5]), VECTORS, F.pad(TIMES, (0, 1), value=nan))
    torch.testing.assert_close(padded, model.encode(HISTORY, torch.tensor([5]), VECTORS, TIMES))


def test_times_can_be_left_out():
    model = HSTU(SETTINGS.model_copy(update={"times": False}))
    assert not model.reads_times
    assert not any("ages" in name for name, _ in model.named_parameters())
