"""The causal low-pass: its averages against their definition, what it lets through, and what it may not see."""

import itertools

import pytest
import torch

from tessera.recommenders.backbones import filter as module
from tessera.recommenders.backbones.filter import Filter, LowPass
from tessera.recommenders.backbones.sasrec import SASRec
from tessera.settings.backbones.filter import FilterSettings
from tessera.settings.backbones.sasrec import SASRecSettings


def low_pass(dim=6, span=16.0):
    torch.manual_seed(0)
    return LowPass(dim, span).double()


def averages(x, decay):
    """The definition, a sum at a time: sum_k decay^k x_(t-k) over sum_k decay^k."""
    slow = torch.zeros_like(x)
    for t in range(x.shape[1]):
        powers = torch.stack([decay**k for k in range(t + 1)])
        slow[:, t] = (powers.flip(0) * x[:, : t + 1]).sum(1) / powers.sum(0)
    return slow


@pytest.mark.parametrize("chunk", [1, 3, 4, 256])
def test_the_slow_part_is_the_average_by_its_definition_in_chunks_of_any_size(chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    layer = low_pass()
    x = torch.randn(3, 11, 6, dtype=torch.float64)
    wanted = averages(x, torch.sigmoid(layer.decay))
    torch.testing.assert_close(layer.slow(x), wanted, atol=1e-12, rtol=1e-10)
    (gradient,) = torch.autograd.grad(layer.slow(x).square().sum(), layer.decay)
    (expected,) = torch.autograd.grad(averages(x, torch.sigmoid(layer.decay)).square().sum(), layer.decay)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("chunk", [3, 256])
def test_the_future_is_not_seen_to_the_bit(chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    layer = low_pass().float()
    x = torch.randn(4, 10, 6)
    for end in range(1, 10):
        changed = torch.cat([x[:, :end], 1e4 * torch.randn(4, 10 - end, 6)], 1)
        assert torch.equal(layer(x)[:, :end], layer(changed)[:, :end])


def test_a_constant_history_comes_through_from_the_first_item_on():
    """Whatever the weight of the fast part: a constant has none."""
    layer = low_pass()
    x = torch.randn(2, 1, 6, dtype=torch.float64).expand(2, 9, 6)
    torch.testing.assert_close(layer(x), x)


def test_fast_changes_pass_less_than_slow_ones_in_every_channel():
    """The gain of |1 - d| / |1 - d e^(-iw)| falls from 1 at frequency 0 to (1 - d) / (1 + d) at the highest."""
    layer = low_pass()
    decay = torch.sigmoid(layer.decay)
    steps = torch.arange(2000, dtype=torch.float64)
    gains = []
    for frequency in (0.0, 0.1, 0.5, 1.0, 2.0, torch.pi):
        wave = torch.polar(torch.ones_like(steps), frequency * steps)
        parts = [layer.slow(part[None, :, None].expand(1, -1, 6).contiguous()) for part in (wave.real, wave.imag)]
        gain = torch.complex(*parts)[0, -1].abs()
        torch.testing.assert_close(
            gain,
            (1 - decay) / (1 - decay * torch.polar(torch.ones(()).double(), torch.tensor(-frequency).double())).abs(),
            atol=1e-8,
            rtol=1e-6,
        )
        gains.append(gain)
    assert all(bool((later < earlier).all()) for earlier, later in itertools.pairwise(gains))


def test_channels_average_over_two_items_up_to_the_span_at_the_start():
    spans = 1 / (1 - torch.sigmoid(low_pass(span=16.0).decay))
    assert spans[0].item() == pytest.approx(2.0)
    assert spans[-1].item() == pytest.approx(16.0)
    assert bool((spans.diff() > 0).all())


def test_decays_near_zero_and_one_stay_finite():
    layer = low_pass().float()
    for value in (-60.0, 12.0, 30.0):
        with torch.no_grad():
            layer.decay.fill_(value)
        x = torch.randn(2, 300, 6, requires_grad=True)
        layer(x).sum().backward()
        assert torch.isfinite(layer.decay.grad).all()
        assert torch.isfinite(layer(x)).all()


def test_without_a_share_it_is_sasrec():
    shape = {"dim": 16, "max_length": 8, "dropout": 0.0}
    torch.manual_seed(0)
    model = Filter(FilterSettings(**shape, share=0.0)).eval()
    plain = SASRec(SASRecSettings(**shape)).eval()
    plain.load_state_dict({name: part for name, part in model.state_dict().items() if "low_pass" not in name})
    inputs = torch.randn(2, 8, 16)
    lengths = torch.tensor([8, 8])
    torch.testing.assert_close(model.hidden(inputs, lengths), plain.hidden(inputs, lengths))
