"""The recurrence of a selective state space, and its gradient.

Of each channel c and number n of its state (Gu and Dao, 2023, equations 1a and 2a and Algorithm 2; the input enters by
the Euler rule, as in their code):

    h_t = exp(step_t A) h_{t-1} + step_t B_t x_t
    y_t = C_t . h_t
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def selective_scan(inputs: Tensor, steps: Tensor, rates: Tensor, enter: Tensor, leave: Tensor) -> Tensor:
    """(batch, length, channels) outputs y of the recurrence, in float32 or float64.

    Args:
        inputs: x, (batch, length, channels).
        steps: positive step sizes, (batch, length, channels).
        rates: A, (channels, state), negative.
        enter: B, (batch, length, state).
        leave: C, (batch, length, state).
    """
    if inputs.is_cuda and inputs.dtype == torch.float32 and find_spec("mamba_ssm") is not None:
        return _kernel(inputs, steps, rates, enter, leave)
    out: Tensor = _SelectiveScan.apply(inputs, steps, rates, enter, leave)  # type: ignore[no-untyped-call]
    return out


def _kernel(inputs: Tensor, steps: Tensor, rates: Tensor, enter: Tensor, leave: Tensor) -> Tensor:
    """The same by the kernel of mamba_ssm, which wants the length last."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # type: ignore[import-not-found]

    wide = (part.transpose(1, 2).contiguous() for part in (inputs, steps))
    narrow = (part.transpose(1, 2).contiguous() for part in (enter, leave))
    out: Tensor = selective_scan_fn(*wide, rates, *narrow)
    return out.transpose(1, 2)


def scan(decay: Tensor, added: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + added_t with h before the first step 0, along the first axis.

    Args:
        decay: (length, ...).
        added: the same shape.
    """
    return parallel_scan(decay, added) if decay.is_cuda else sequential_scan(decay, added)


def sequential_scan(decay: Tensor, added: Tensor) -> Tensor:
    """One step after the other: a step of a batch fits into a cache of a CPU, so everything is read once."""
    states = torch.empty_like(added)
    state = torch.zeros_like(added[0])
    for t in range(len(added)):
        state = torch.addcmul(added[t], decay[t], state, out=states[t])
    return states


def parallel_scan(decay: Tensor, added: Tensor) -> Tensor:
    """The same in log2(length) rounds (Blelloch, 1990): pairs of steps are one step of half as long a sequence."""
    length = len(added)
    if length == 1:
        return added
    paired = length // 2
    odd = parallel_scan(
        decay[1::2] * decay[: 2 * paired : 2], torch.addcmul(added[1::2], decay[1::2], added[: 2 * paired : 2])
    )
    states = torch.empty_like(added)
    states[1::2] = odd
    states[0] = added[0]
    states[2::2] = torch.addcmul(added[2::2], decay[2::2], odd[: (length - 1) // 2])
    return states


class _SelectiveScan(torch.autograd.Function):
    """The gradient is a scan from the end to the start; what autograd would keep of every product is made anew."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, steps: Tensor, rates: Tensor, enter: Tensor, leave: Tensor) -> Tensor:
        steps, inputs, enter, leave = (part.transpose(0, 1).contiguous() for part in (steps, inputs, enter, leave))
        decay = (steps[..., None] * rates).exp_()
        states = scan(decay, (steps * inputs)[..., None] * enter[:, :, None])  # (length, batch, channels, state)
        ctx.save_for_backward(inputs, steps, rates, enter, leave, decay, states)
        return (states @ leave[..., None]).squeeze(-1).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        inputs, steps, rates, enter, leave, decay, states = ctx.saved_tensors
        gradient = gradient.transpose(0, 1)
        to_leave = (gradient[:, :, None] @ states).squeeze(2)
        shifted = torch.cat((decay[1:], torch.zeros_like(decay[:1])))  # what a step hands to the one before it
        outer = gradient[..., None] * leave[:, :, None]
        to_states = scan(shifted.flip(0), outer.flip(0)).flip(0)
        to_input = (to_states @ enter[..., None]).squeeze(-1)  # of step * input
        to_enter = ((steps * inputs)[:, :, None] @ to_states).squeeze(2)
        to_rate = torch.zeros_like(decay)  # of step * rate
        torch.mul(to_states[1:], states[:-1], out=to_rate[1:])
        to_rate *= decay
        to_steps = (to_rate * rates).sum(-1) + to_input * inputs
        to_rates = torch.einsum("lbcn,lbc->cn", to_rate, steps)
        turned = (part.transpose(0, 1) for part in (to_input * steps, to_steps))
        return (*turned, to_rates, to_enter.transpose(0, 1), to_leave.transpose(0, 1))
