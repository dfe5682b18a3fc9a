"""What a finished run says of training targets: the items that it thinks likely, and how likely each is.

The teacher is asked once before training, with every training history as far as the target, so that a step costs no
pass of its own (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tessera.artifacts.logs import Progress
from tessera.artifacts.models import read_model
from tessera.data.padding import padded
from tessera.evaluation.histories import Histories
from tessera.evaluation.judge import Scorer, reads_times, users_at_once
from tessera.recommenders.evaluate import load_scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import TrainingHistories
from tessera.settings.runs import Run
from tessera.training.batches import PrefixBatches, SingleTargetBatches, WindowBatches


@dataclass(frozen=True)
class SoftTargets:
    """The likeliest items of every training target, and how all others are likely on average."""

    items: np.ndarray
    """(rows, kept) int32 item ids, beside the training interactions; 0 where a row is no target."""
    shares: np.ndarray
    """(rows, kept) float32 their probabilities; 0 where a row is no target."""
    rest: np.ndarray
    """(items + 1,) float32 how what is not kept is spread over the catalogue, the mean over targets; it sums to one,
    or is 0 where nothing is left."""


def read_teacher(weights: Path, inputs: RunInputs, popularity: np.ndarray) -> Scorer:
    """A finished run, ready to score.

    Args:
        weights: its `model.safetensors`; the description beside it says what it is.
        inputs: the other files, those of the teacher among them.
        popularity: (items + 1,) training interactions an item.
    Raises:
        ArtifactError: it was trained on another catalogue.
    """
    _, description = read_model(weights)
    run = Run.model_validate(description["run"])
    # what the reader's own training reads is none of the teacher's
    asked = inputs.model_copy(update={"teacher": None, "members": [], "start": None})
    return load_scorer(weights, run, popularity, asked)


@torch.no_grad()
def soft_targets(
    teacher: Scorer, histories: TrainingHistories, catalogue: int, kept: int, temperature: float, among: Tensor
) -> SoftTargets:
    """The teacher's probabilities of what comes next, at every training interaction but a user's first.

    Args:
        teacher: a finished run.
        histories: what is learned from.
        catalogue: items of the catalogue.
        kept: items of a target, the likeliest ones.
        temperature: what logarithms of probabilities are divided by.
        among: (known,) ids of the items that may be likely.
    Raises:
        ValueError: the teacher reads times, and they were not given.
    """
    if reads_times(teacher) and histories.times is None:
        raise ValueError("the teacher reads times, which this system's backbone does not; teach by another one")
    longest = int(np.diff(histories.offsets).max(initial=1))
    most = longest if teacher.max_history is None else teacher.max_history
    times = histories.times if reads_times(teacher) else None
    prefixes = PrefixBatches(histories.offsets, histories.items, most, 1, times=times)
    rows = len(histories.items)
    kept = min(kept, len(among))
    items, shares = np.zeros((rows, kept), np.int32), np.zeros((rows, kept), np.float32)
    rest = torch.zeros(len(among), dtype=torch.float64)
    order = np.argsort(-prefixes.lengths, kind="stable")
    size = users_at_once(len(among))
    with Progress("what the teacher says", len(order), "targets") as progress:
        for numbers in (order[start : start + size] for start in range(0, len(order), size)):
            scores = teacher(prefixes.batch(numbers))
            probabilities = (scores.index_select(1, among.to(scores.device) - 1) / temperature).softmax(1)
            likely = probabilities.topk(kept, 1)
            ends = prefixes.starts[numbers] + prefixes.lengths[numbers] - 1
            items[ends] = among[likely.indices.cpu()].numpy()
            shares[ends] = likely.values.cpu().numpy()
            rest += probabilities.scatter_(1, likely.indices, 0.0).sum(0, dtype=torch.float64).cpu()
            progress.update(len(numbers))
    spread = np.zeros(catalogue + 1, np.float32)
    if rest.sum() > 0:
        spread[among.numpy()] = (rest / rest.sum()).numpy()
    return SoftTargets(items, shares, spread)


@dataclass(frozen=True)
class TaughtHistories(Histories):
    """Histories with what the teacher says of their targets."""

    likely: Tensor | None = None
    """(targets, kept) int32 item ids, in the order of the targets."""
    shares: Tensor | None = None
    """(targets, kept) float32 their probabilities."""


class TaughtBatches:
    """Batches of training histories, and beside each target what the teacher says of it."""

    def __init__(self, batches: WindowBatches, soft: SoftTargets) -> None:
        """
        Args:
            batches: windows of which all items but the first are targets, or rows with one target each.
            soft: of the same training interactions.
        """
        self.batches, self.soft = batches, soft
        self.targets = batches.targets

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """As without a teacher."""
        return self.batches.plan(seed, epoch)

    def batch(self, numbers: np.ndarray) -> TaughtHistories:
        """As without a teacher, with the rows of the targets."""
        histories = self.batches.batch(numbers)
        rows = self._rows(numbers)
        likely, shares = torch.from_numpy(self.soft.items[rows]), torch.from_numpy(self.soft.shares[rows])
        return TaughtHistories(
            histories.items, histories.lengths, histories.users, histories.times, histories.targets, likely, shares
        )

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        """(targets,) training interactions that are the targets of a batch."""
        starts, lengths = self.batches.starts[numbers], self.batches.lengths[numbers]
        if isinstance(self.batches, SingleTargetBatches):
            last: np.ndarray = starts + lengths - 1
            return last
        # one more than the row, so that 0 is the padding
        ends = padded(np.arange(1, len(self.soft.items) + 1), starts + 1, lengths - 1)
        every: np.ndarray = ends[ends > 0] - 1
        return every
