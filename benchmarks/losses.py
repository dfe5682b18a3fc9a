"""Cross-entropy over a catalogue: microseconds of CPU a target, forward and gradients, of ours and of autograd's forms.

    OMP_NUM_THREADS=1 python benchmarks/losses.py --items 3001 12101

`best of four` is the loss of four vectors a user, of which the best counts for an item (EIMF).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.objectives.best_of_several import best_of_several
from tessera.objectives.cross_entropy import cross_entropy

WIDTH, TARGETS, VECTORS = 64, 1000, 4
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """All scores at once, and autograd."""
    return F.cross_entropy(states @ items.T, targets, reduction="sum")


def plain_best(states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """The best of several vectors, all scores at once."""
    return F.cross_entropy((states @ items.T).amax(1), targets, reduction="sum")


def microseconds(loss: Loss, items: int, vectors: int, repeats: int) -> float:
    """Median CPU time of a target; the first calls, which compile and warm up, do not count."""
    torch.manual_seed(0)
    shape = (TARGETS, WIDTH) if vectors == 1 else (TARGETS, vectors, WIDTH)
    states = torch.randn(shape, requires_grad=True)
    catalogue, targets = (torch.randn(items, WIDTH) * 0.1).requires_grad_(), torch.randint(items, (TARGETS,))
    seconds = []
    for _ in range(repeats + 2):
        states.grad = catalogue.grad = None
        started = time.process_time()
        loss(states, catalogue, targets).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[2:]) / TARGETS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[3001, 12101])
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    forms: dict[str, tuple[Loss, int]] = {
        "ours": (cross_entropy, 1),
        "plain": (plain, 1),
        "plain, compiled": (torch.compile(plain, dynamic=False), 1),
        "ours, best of four": (best_of_several, VECTORS),
        "plain, best of four": (plain_best, VECTORS),
        "plain, best of four, compiled": (torch.compile(plain_best, dynamic=False), VECTORS),
    }
    print(f"| form | {' | '.join(f'{items:,} items' for items in given.items)} |\n|---|{'---:|' * len(given.items)}")
    for name, (loss, vectors) in forms.items():
        times = [f"{microseconds(loss, items, vectors, given.repeats):.1f}" for items in given.items]
        print(f"| {name} | {' | '.join(times)} |", flush=True)


if __name__ == "__main__":
    main()
