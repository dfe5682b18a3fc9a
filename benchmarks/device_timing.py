"""How long a step takes on a device, what of it the device works, and what memory it needs: for programs beside this.

On CUDA a time is that between two events around many steps, after a warm-up, so that the host queues ahead as it does
in training; on a CPU it is `perf_counter`. What is measured is bounded in time: few steps where steps are slow.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], object]

# dense, without sparsity, as the makers' data sheets give it: FLOP/s of bfloat16 products with sums in float32
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12,
    "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12,
}  # fmt: skip
SLOW = 2.0
"""Seconds of a step from which on one measured step is enough."""


def peak_flops(device: torch.device) -> float | None:
    """The card's peak for bfloat16; None for one that is not in the table, and for a CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for known, flops in PEAKS.items() if known in name), None)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Seconds, after all that was asked of the device."""
    synchronize(device)
    return time.perf_counter()


def fresh(device: torch.device) -> None:
    """Give back what earlier work held, and count peak memory anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Most memory that tensors took since `fresh`; on a CPU the most that the process ever took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@dataclass
class Timed:
    """What a step takes."""

    seconds: float
    """A step, host and device side by side."""
    steps: int
    """How many were measured."""


def timed(step: Step, device: torch.device, most: float) -> Timed:
    """Time a step: two to warm up, then about `most` seconds in three parts, of which the median is taken."""
    for _ in range(2):
        started = clock(device)
        step()
        once = clock(device) - started
        if once > SLOW:
            break
    if once > SLOW:  # the first pays for what is made once: measure one more unless there is no time for it
        if once < 2 * SLOW:
            started = clock(device)
            step()
            once = clock(device) - started
        return Timed(once, 1)
    each = max(1, min(200, int(most / 3 / max(once, 1e-6))))
    found = [_span(step, each, device) / each for _ in range(3)]
    return Timed(statistics.median(found), 3 * each)


def _span(step: Step, steps: int, device: torch.device) -> float:
    """Seconds of so many steps, queued without waiting."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - started
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(steps):
        step()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last)) / 1000


def kernel_seconds(step: Step, device: torch.device, steps: int = 2) -> tuple[float, list[tuple[str, float]]] | None:
    """Seconds a step of kernels and copies, and the largest kernels with theirs; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        synchronize(device)
    found = [(event.key, event.self_device_time_total / 1e6 / steps) for event in profile.key_averages()]
    found.sort(key=lambda pair: -pair[1])
    return sum(seconds for _, seconds in found), found[:6]


def flops(step: Step) -> float:
    """Floating-point operations of the products and attentions of a step, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())
