import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tessera.objectives.cross_entropy import cross_entropy


def _case(dtype=torch.float64, targets=37, items=101, dim=8, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    states = (torch.randn(targets, dim, generator=generator, dtype=dtype) * scale).requires_grad_()
    vectors = torch.randn(items, dim, generator=generator, dtype=dtype).requires_grad_()
    return states, vectors, torch.randint(items, (targets,), generator=generator)


@pytest.mark.parametrize("rows", [1, 7, 37, 1000, None])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_values_and_gradients_are_those_of_the_plain_form(rows, scale):
    states, vectors, targets = _case(scale=scale)
    (3.5 * cross_entropy(states, vectors, targets, rows)).backward()
    got = states.grad.clone(), vectors.grad.clone()
    states.grad = vectors.grad = None
    expected = F.cross_entropy(states @ vectors.T, targets, reduction="sum")
    (3.5 * expected).backward()
    torch.testing.assert_close(cross_entropy(states, vectors, targets, rows), expected)
    torch.testing.assert_close(got, (states.grad, vectors.grad))


def test_a_hopeless_target_has_a_finite_loss_in_float32():
    states = torch.tensor([[300.0, 0.0]], requires_grad=True)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = cross_entropy(states, vectors, torch.tensor([1]))
    assert loss.item() == pytest.approx(300.0)


def test_gradcheck():
    states, vectors, targets = _case(targets=5, items=9, dim=3)
    assert torch.autograd.gradcheck(lambda s, v: cross_entropy(s, v, targets, 2), (states, vectors))


def test_bfloat16_autocast_is_close_and_gives_float32_gradients():
    states, vectors, targets = _case(torch.float32)
    expected = F.cross_entropy(states @ vectors.T, targets, reduction="sum").item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(states, vectors, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=0.02)
    assert states.grad.dtype == torch.float32


def test_bfloat16_sums_are_kept_in_float32():
    """Whatever the chunks, no further from float32 than the plain form under the same autocast."""
    states, vectors, targets = _case(torch.float32, targets=1024, items=300)

    def relative(loss_of):
        states.grad = vectors.grad = None
        loss = loss_of()
        loss.float().backward()
        return loss.item(), vectors.grad.clone(), states.grad.clone()

    exact = relative(lambda: F.cross_entropy(states @ vectors.T, targets, reduction="sum"))

    def under_autocast(loss_of):
        def found():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return loss_of()

        return relative(found)

    plain = under_autocast(lambda: F.cross_entropy(states @ vectors.T, targets, reduction="sum"))
    ours = under_autocast(lambda: cross_entropy(states, vectors, targets, 16))
    assert ours[0] == pytest.approx(exact[0], rel=2e-3)
    for index in (1, 2):
        off = [float((found[index] - exact[index]).norm() / exact[index].norm()) for found in (plain, ours)]
        assert off[1] < 1.5 * off[0]


class _Waits(TorchDispatchMode):
    """Counts what makes a GPU's host wait: numbers that Python reads, and sizes that depend on values."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


def test_the_host_waits_once_however_many_chunks():
    states, vectors, targets = _case(torch.float32, scale=0.1)
    for rows in (1, 7, 37):
        with _Waits() as waits:
            cross_entropy(states, vectors, targets, rows).backward()
        assert waits.count == 1


@pytest.mark.parametrize("rows", [1, 7, 10])
def test_hopeless_targets_of_some_chunks_alone(rows):
    """Those of the second chunk are far out of reach in float32; the others are as they would be without them."""
    states, vectors, targets = _case(torch.float32, targets=30)
    with torch.no_grad():
        states[10:17] *= 100
    loss = cross_entropy(states, vectors, targets, rows)
    plain = F.cross_entropy(states.double() @ vectors.double().T, targets, reduction="sum")
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)


def test_a_second_derivative_is_refused():
    """It would be wrong, without a word: what the forward pass has saved has no graph."""
    states, items, targets = _case()
    scale = torch.ones((), dtype=states.dtype, requires_grad=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(cross_entropy(states * scale, items, targets), scale, create_graph=True)
