"""The selective scan against the plain recurrence, and the backbone on top of it."""

import pytest
import torch

from tessera.recommenders.backbones.mamba import Mamba
from tessera.recommenders.backbones.selective_scan import parallel_scan, selective_scan, sequential_scan
from tessera.settings.backbones.mamba import MambaSettings


def recurrence(inputs, steps, rates, enter, leave):
    """The two equations, written down; autograd differentiates them."""
    state = inputs.new_zeros(inputs.shape[0], *rates.shape)
    outputs = []
    for t in range(inputs.shape[1]):
        decay = (steps[:, t, :, None] * rates).exp()
        state = decay * state + (steps[:, t] * inputs[:, t])[..., None] * enter[:, t, None]
        outputs.append((state * leave[:, t, None]).sum(-1))
    return torch.stack(outputs, 1)


def arguments(length, batch=3, channels=5, state=4, dtype=torch.float64):
    made = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=made, dtype=dtype)

    return [
        normal(batch, length, channels),
        normal(batch, length, channels).exp(),
        -normal(channels, state).exp(),
        normal(batch, length, state),
        normal(batch, length, state),
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50, 128, 129])
def test_the_scan_is_the_recurrence_forward_and_gradients(length):
    plain, fast = ([part.requires_grad_() for part in arguments(length)] for _ in range(2))
    expected, given = recurrence(*plain), selective_scan(*fast)
    torch.testing.assert_close(given, expected, atol=1e-12, rtol=1e-10)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (expected * weights).sum().backward()
    (given * weights).sum().backward()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-9)


def test_the_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(selective_scan, [part.requires_grad_() for part in arguments(5, 2, 3, 2)])


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 31, 32, 33, 1000])
def test_the_parallel_scan_is_the_sequential_one(length):
    made = torch.Generator().manual_seed(length)
    decay = torch.rand(length, 2, 3, generator=made, dtype=torch.float64)
    added = torch.randn(length, 2, 3, generator=made, dtype=torch.float64)
    torch.testing.assert_close(parallel_scan(decay, added), sequential_scan(decay, added), atol=1e-12, rtol=1e-12)


def test_steps_of_any_size_stay_finite():
    """A cumulative product of decays would divide by zero here; neither scan does."""
    inputs, steps, rates, enter, leave = arguments(200, dtype=torch.float32)
    for size in (1e-6, 1e3):
        parts = [part.requires_grad_() for part in (inputs.clone(), steps * size, rates.clone(), enter, leave)]
        parts = [part.detach().requires_grad_() for part in parts]
        selective_scan(*parts).sum().backward()
        assert all(torch.isfinite(part.grad).all() for part in parts)


def test_first_steps_lie_between_their_bounds_and_rates_count_up():
    torch.manual_seed(0)
    layer = Mamba(MambaSettings(dim=32)).layers[0]
    sizes = torch.nn.functional.softplus(layer.step.bias)
    assert sizes.min() >= 1e-3 * 0.999
    assert sizes.max() <= 1e-1 * 1.001
    torch.testing.assert_close(layer.log_rates.exp()[3], torch.arange(1.0, 17.0))


def test_it_remembers_what_came_first():
    """The first of seven items decides what is asked at the end: the state must carry it over the six others."""
    torch.manual_seed(0)
    model = Mamba(MambaSettings(dim=16, layers=1, dropout=0.0, max_length=24))
    items = torch.nn.Embedding(12, 16)
    optimiser = torch.optim.Adam([*model.parameters(), *items.parameters()], 1e-2)
    draw = torch.Generator().manual_seed(3)
    for _ in range(200):
        first = torch.randint(1, 3, (64, 1), generator=draw)
        histories = torch.cat((first, torch.randint(3, 12, (64, 6), generator=draw)), 1)
        states = model.encode(histories, torch.full((64,), 7), items.weight)
        loss = torch.nn.functional.cross_entropy(states @ items.weight[1:3].T, first[:, 0] - 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
