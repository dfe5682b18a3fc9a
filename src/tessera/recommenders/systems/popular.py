"""The most popular items for everybody: what any recommender has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Counted, TrainingHistories
from tessera.settings.systems.popular import PopularSettings


class Popular(Counted):
    """Scores every item by its training interactions."""

    max_history = 1

    @staticmethod
    def fit(settings: PopularSettings, histories: TrainingHistories, items: int) -> dict[str, Tensor]:
        """Training interactions an item, (items + 1,)."""
        return {"counts": torch.from_numpy(np.bincount(histories.items, minlength=items + 1).astype(np.float32))}

    def __init__(self, settings: PopularSettings, tensors: Mapping[str, Tensor]) -> None:
        self.counts = tensors["counts"][1:]

    def __call__(self, histories: Histories) -> Tensor:
        """(batch, items) scores."""
        return self.counts.expand(len(histories), -1).clone()
