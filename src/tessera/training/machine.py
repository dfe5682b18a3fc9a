"""Where training happens: device, precision, seeds, and the processes that share a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tessera.artifacts.files import identity


class MachineSettings(Protocol):
    """What a machine reads of the settings of a training."""

    @property
    def device(self) -> str:
        """auto, cpu or cuda."""

    @property
    def precision(self) -> str:
        """float32 or bfloat16."""

    @property
    def processes(self) -> int:
        """Processes that share a step."""


def pick_device(name: str) -> torch.device:
    """The device of a setting; this process computes there in the same order every time from now on, on a GPU as
    `_settle_cuda` says.

    Whoever trains, scores, clusters or embeds gets the device here, so all do it under the same modes.

    Raises:
        ValueError: there is no such device, cuda was asked for and there is none, or the environment asks for cuBLAS as
            it differs between runs.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: cuda was asked for, but torch sees no GPU here; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu or cuda (got {name!r})") from None
    _settle_order()
    if name == "cuda":
        _settle_cuda()
    return device


@contextmanager
def same_modes() -> Iterator[None]:
    """Leave torch's deterministic mode as it is; who scores needs no order of gradients."""
    before = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _settle_order() -> None:
    """Same numbers twice: without it several threads of a CPU, and a GPU, add rows of a repeated index in any order.

    Not `warn_only`: memory-efficient attention, which every float32 attention on a GPU takes, then adds its gradients
    in any order and says so once a process; told to be strict, it has a form that does not. What has none raises, and
    `stage` tells what can be done. It is set by the debug mode: `use_deterministic_algorithms` sets the same, and loads
    torch's compiler to tell it as well, which takes two seconds of every job.
    """
    torch.set_deterministic_debug_mode("error")
    # on by default in that mode: a kernel for every new tensor, to show who reads what nobody wrote
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


_CUBLAS = (":4096:8", ":16:8")
"""Workspaces with which cuBLAS adds in the same order every time; torch refuses others in its deterministic mode."""


def _settle_cuda() -> None:
    """cuBLAS that adds in one order, float32 in full, no kernels that are planned anew for every shape.

    Raises:
        ValueError: CUBLAS_WORKSPACE_CONFIG is another than the two.
    """
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _CUBLAS[0])
    if workspace not in _CUBLAS:
        raise ValueError(
            f"CUBLAS_WORKSPACE_CONFIG is {workspace!r}, under which the same run gives other numbers on this GPU; "
            f"expected {' or '.join(_CUBLAS)}: unset it, or set device: cpu"
        )
    # cuDNN's attention (16 bits) plans a graph for every new shape, and training and judging have many: steps took up
    # to four times as long. Beyond 65,535 rows it fails (`Expected mha_graph.execute(...)`). The others stay.
    torch.backends.cuda.enable_cudnn_sdp(False)
    # on by default, products' TF32 is off: recurrences and convolutions would have 10 bits where the config says 23
    torch.backends.cudnn.allow_tf32 = False


def seed_step(*numbers: int) -> None:
    """Seed torch from (seed, epoch, step, ...): a resumed run goes on with the same numbers, no generator saved."""
    mixed = 0xCBF29CE484222325
    for number in numbers:
        mixed = ((mixed ^ (number & 0xFFFFFFFF)) * 0x100000001B3) % 2**64
        mixed ^= mixed >> 29
    torch.manual_seed(mixed % 2**63)


def state_identity(*parts: str) -> str:
    """Name of a trainer's state: changes with any part (settings, code, fingerprints of inputs), and with the machine.

    Some sums are split among threads (LayerNorm's gradients, a sum over everything), and a GPU adds in other orders: a
    run that went on with another number of them, or where `device: auto` means another, would be neither the one nor
    the other.
    """
    of_gpu = torch.cuda.is_available() and any('"device": "auto"' in part for part in parts)
    return identity(*parts, f"{torch.get_num_threads()} threads", *(["cuda"] if of_gpu else []))


class Machine:
    """One process, or one of several under accelerate; a step means the same in both."""

    def __init__(self, settings: MachineSettings) -> None:
        self.settings = settings
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if settings.processes != self.world:
            raise ValueError(f"training.processes is {settings.processes}, but {self.world} were started")
        self.accelerator: Any = None
        if self.world > 1:
            from accelerate import Accelerator, InitProcessGroupKwargs

            device = pick_device(settings.device)  # refuses a GPU that is not there
            # others wait while the first validates
            handlers = [InitProcessGroupKwargs(timeout=timedelta(hours=12))]
            self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=handlers)
            joined = self.accelerator.num_processes
            if joined != self.world:  # each would train alone on its share, and nobody notice
                raise ValueError(f"{self.world} processes were started, but {joined} share a step")
            self.device: torch.device = self.accelerator.device
        else:
            self.device = pick_device(settings.device)

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for the forward pass."""
        if self.settings.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """The sum of a number over processes."""
        if self.accelerator is None:
            return value
        summed: Tensor = self.accelerator.reduce(value, reduction="sum")
        return summed

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows of a batch of all processes.

        Raises:
            ValueError: the batch does not divide, so that processes would hold unlike shares.
        """
        if len(rows) % self.world:
            raise ValueError(f"a batch of {len(rows)} does not divide among {self.world} processes")
        return rows[self.rank :: self.world]

    def gather(self, rows: Tensor) -> Tensor:
        """(world x n, ...) the rows of all processes in the order that `share` divided; gradients flow back.

        The gradient of a loss computed from it in every process alike is `world` times that of the loss, once gradients
        are summed over processes: divide the loss by `world`, as `losses.total` does.
        """
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self.rank, self.world)  # type: ignore[no-untyped-call]
        return gathered

    def gather_all(self, rows: Tensor) -> Tensor:
        """`gather` where processes hold unlike shares, or none: (n, ...) their rows in the order of `[rank::world]`."""
        if self.world == 1:
            return rows
        sizes = self.gather(torch.tensor([len(rows)], device=rows.device))
        most = int(sizes.max())
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        there = torch.arange(most, device=rows.device)[:, None] < sizes
        return self.gather(padded)[there.flatten()]

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sum gradients over processes, in place, in one exchange a dtype.

        One that a process lacks counts as zero there; one that all lack stays away, as in a single process.
        """
        if self.world == 1:
            return
        lacking = [parameter.grad is None for parameter in parameters]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for dtype in sorted({parameter.dtype for parameter in parameters}, key=str):
            own = [number for number, parameter in enumerate(parameters) if parameter.dtype == dtype]
            gradients = [gradient for number in own if (gradient := parameters[number].grad) is not None]
            used = gradients[0].new_tensor([not lacking[number] for number in own])
            flat = torch.cat([*(gradient.flatten() for gradient in gradients), used])
            torch.distributed.all_reduce(flat)
            *sums, used = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(own)])
            for gradient, summed in zip(gradients, sums, strict=True):
                gradient.copy_(summed.view_as(gradient))
            if any(lacking[number] for number in own):
                for number, count in zip(own, used.tolist(), strict=True):
                    if not count:
                        parameters[number].grad = None

    def agree(self, values: list[float]) -> list[float]:
        """What the first process says, in all of them."""
        if self.accelerator is None:
            return values
        from accelerate.utils import broadcast

        agreed: list[float] = broadcast(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()
        return agreed


class _Gather(torch.autograd.Function):
    """Rows of all processes, interleaved as dealt; backward sums what every process says of one's own rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor, rank: int, world: int) -> Tensor:
        context.rank, context.world = rank, world
        parts = [torch.empty_like(rows) for _ in range(world)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # a copy: the tensor may be the gradient of something else too
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient[context.rank :: context.world].contiguous(), None, None
