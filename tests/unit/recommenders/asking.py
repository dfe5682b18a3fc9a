"""Asking a recommender as training and the judge do, from plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera.evaluation.histories import Histories
from tessera.recommenders.systems.base import Recommender, TrainedScorer, as_scorer
from tessera.training.phases import Position

START = Position(0, 0, 0, 0.0, {})
CPU = torch.device("cpu")


def scorer(model: Recommender) -> TrainedScorer:
    """A system behind the judge's interface."""
    return as_scorer(model, CPU)


def ask(scorer: Any, rows: np.ndarray, lengths: np.ndarray | None = None, users: np.ndarray | None = None) -> Tensor:
    """(batch, items) scores after rows (batch, length)."""
    scores: Tensor = scorer(Histories.of(np.asarray(rows), None if lengths is None else np.asarray(lengths), users))
    return scores


def summed(model: Recommender, histories: Tensor | Histories) -> tuple[Tensor, Tensor]:
    """All losses of a batch as a sum over its targets, and their number."""
    batch = histories if isinstance(histories, Histories) else Histories.of(histories.numpy())
    losses = model.losses(batch, START).values()
    (count,) = (term.targets for term in losses if term.targets is not None)
    total = sum(term.value if term.targets is not None else term.value * count for term in losses)
    assert isinstance(total, Tensor)
    return total, count
