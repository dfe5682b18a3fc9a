"""A quantiser without a fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mine.drawn_settings import DrawnCodes

from tessera.quantization.base import Fitted, PartQuantizer, nearest
from tessera.quantization.vectors import PartVectors, standard

Part = PartQuantizer


def fit(settings: DrawnCodes, data: Sequence[PartVectors], state: Path) -> Fitted:
    """Codebooks of one part: at every level so many rows of what is left."""
    (part,) = data
    vectors = torch.from_numpy(part.vectors)
    scaling = standard(vectors, part.widths)
    left, books, history = scaling.apply(vectors), [], []
    generator = torch.Generator().manual_seed(settings.seed)
    for level, size in enumerate(settings.sizes):
        books.append(left[torch.randperm(len(left), generator=generator)[:size]])
        left = left - books[-1][nearest(left, books[-1])]
        history.append({"level": level + 1, "left": float(left.square().mean())})
    return Fitted([Part(scaling, books)], history)
