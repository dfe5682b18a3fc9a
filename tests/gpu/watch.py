"""Looking into training from outside: the loss and weights of every step, an end in the middle, shared draws."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tessera.artifacts.logs import Terminated
from tessera.training.engine import Engine

STEPS = 20


@dataclass
class Watched:
    """What a training did."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of every step."""
    first: dict[str, Tensor] = field(default_factory=dict)
    """Weights before the first step."""
    at: dict[str, Tensor] = field(default_factory=dict)
    """Weights after step `STEPS`."""


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


@contextmanager
def watching(stop: int | None = None, kill: bool = False) -> Iterator[Watched]:
    """Watch every training within.

    Args:
        stop: end before this step of the first training (from 0), as a run that is asked to end does.
        kill: end the process there by SIGKILL instead.
    """
    watched = Watched()

    def sums(engine: Engine) -> list[float]:
        return list(engine.sums.get("loss", [0.0, 0.0]))

    def around(step: Callable[..., None]) -> Callable[..., None]:
        def run(self: Engine, *arguments: Any) -> None:
            weights = self.trained
            if stop is not None and len(watched.losses) == stop:
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise Terminated
            if not watched.first:
                watched.first = _copied(weights.state_dict())
            before, counted = sums(self)
            step(self, *arguments)
            after, now = sums(self)
            watched.losses.append((after - before) / max(1, now - counted))
            if len(watched.losses) == STEPS:
                watched.at = _copied(weights.state_dict())

        return run

    with mock.patch.object(Engine, "_step", around(Engine._step)):
        yield watched


class SharedDraws(TorchFunctionMode):
    """Random numbers of any device come from the CPU's generator: those of CUDA's differ at the same seed."""

    PLAIN = (torch.rand, torch.randn, torch.randint, torch.randperm)
    LIKE = (torch.rand_like, torch.randn_like)
    INPLACE = ("exponential_", "uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_",
               "xavier_uniform_", "xavier_normal_")  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.PLAIN and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func in self.LIKE:
            return func(args[0].cpu(), *args[1:], **kwargs).to(args[0].device)
        if getattr(func, "__name__", "") in self.INPLACE:
            filled, rest = (args[0], args[1:]) if args else (kwargs.pop("tensor"), ())
            # a model that is about to be read from a file is made on `meta` first, where nothing can be drawn
            if filled.device.type not in ("cpu", "meta"):
                drawn = filled.detach().cpu()
                func(drawn, *rest, **kwargs)
                filled.detach().copy_(drawn)
                return filled
            return func(filled, *rest, **kwargs)
        if func is torch.nn.functional.gumbel_softmax:
            return _gumbel_softmax(*args, **kwargs)
        return func(*args, **kwargs)


def _gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Torch's own, which draws inside where no mode looks, with draws of the CPU's generator."""
    draws = -torch.empty(logits.shape, dtype=logits.dtype).exponential_().log()
    soft = ((logits + draws.to(logits.device)) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    return torch.zeros_like(logits).scatter_(dim, index, 1.0) - soft.detach() + soft
