"""What item encoders share: standardised tables, adapters, and the targets of a whole step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn


def standardized(vectors: Tensor, present: Tensor) -> Tensor:
    """Vectors (..., width) centred and at unit mean square over what is `present` (...), zero elsewhere."""
    mean, scale = standard(vectors, present)
    return (vectors - mean) / scale * present[..., None]


def standard(vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """What `standardized` takes off, (width,), and divides by, (): mean and root mean square of what is present."""
    mean = vectors[present].mean(0)
    return mean, (vectors - mean)[present].square().mean().sqrt().clamp(min=1e-12)


def make_adapter(
    widths: Sequence[int], dim: int, dropout: float, activation: Literal["gelu", "none"] = "gelu", norm: bool = False
) -> nn.Sequential:
    """Layers through `widths`, the first of which enters, to item vectors of width `dim`.

    They begin at the scale of trainable vectors, whatever the scale of what enters.
    """
    layers: list[nn.Module] = [nn.LayerNorm(widths[0])] if norm else []
    for before, after in pairwise(widths):
        between = nn.GELU() if activation == "gelu" else nn.Identity()
        layers += [nn.Linear(before, after), between, nn.Dropout(dropout)]
    last = nn.Linear(widths[-1], dim)
    nn.init.normal_(last.weight, std=0.05 / widths[-1] ** 0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def of_all_processes(targets: Tensor) -> Tensor:
    """The targets of the whole step: a contrast among fewer items would be another loss with every process more."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return targets
    world = torch.distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.int64, device=targets.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor([len(targets)], device=targets.device))
    most = int(torch.cat(counts).max())
    parts = [torch.zeros(most, dtype=targets.dtype, device=targets.device) for _ in range(world)]
    torch.distributed.all_gather(parts, F.pad(targets, (0, most - len(targets))))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
