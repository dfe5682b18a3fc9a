"""The most popular items for everybody: what any recommender has to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tessera.settings.systems.popular import PopularSettings


def fit(settings: PopularSettings, offsets: np.ndarray, items: np.ndarray, count: int) -> dict[str, Tensor]:
    """Training interactions an item, (items + 1,), from training histories."""
    return {"counts": torch.from_numpy(np.bincount(items, minlength=count + 1).astype(np.float32))}


class Scorer:
    """Scores every item by its count."""

    max_history: int | None = 1

    def __init__(self, settings: PopularSettings, tensors: dict[str, Tensor]) -> None:
        self.counts = tensors["counts"][1:]

    def __call__(self, histories: np.ndarray, lengths: np.ndarray) -> Tensor:
        """(batch, items) scores."""
        return self.counts.expand(len(histories), -1).clone()
