"""Knowledge distillation: a network learns from a finished run, too, so that one does what several did.

Beside each training target stands what the teacher thinks likely there. The loss is the cross-entropy with
(1 - w) target + w teacher, w the weight (Hinton, Vinyals and Dean, arXiv 1503.02531, with the student's own softmax at
temperature 1). As cross-entropy is log-sum-exp minus the score of what is to be predicted, the teacher changes the
latter alone: a step costs one weighted sum of item vectors a target, and no pass of the teacher.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import WithoutCold
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.soft_targets import TaughtBatches, TaughtHistories, read_teacher, soft_targets
from tessera.recommenders.systems.backbone import SequentialRecommender
from tessera.recommenders.systems.base import TrainingHistories
from tessera.settings.losses.cross_entropy import CrossEntropy
from tessera.settings.runs import Run
from tessera.settings.systems.distilled import DistilledSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Batches, Position


class Distilled(SequentialRecommender):
    """An item encoder, a backbone and a loss, taught by a finished run. What it is after training has no teacher."""

    settings: DistilledSystem
    inputs: RunInputs
    popularity: np.ndarray
    rest: Tensor | None = None
    """(items + 1,) how the teacher spreads what is not kept, while there is training."""

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> Distilled:
        """See `Recommender.build`; only training asks the teacher.

        Raises:
            ValueError: the loss is not over the catalogue.
        """
        assert isinstance(run.method, DistilledSystem)
        if not isinstance(run.loss, CrossEntropy):
            raise ValueError(f"{run.system}: {run.loss.kind} is no loss over all items; a teacher needs cross_entropy")
        made = super().build(run, inputs, popularity)
        assert isinstance(made, cls)
        made.settings, made.inputs, made.popularity = run.method, inputs, popularity
        return made

    def batches(self, run: Run, histories: TrainingHistories) -> Batches:
        """Those of the system without a teacher, with what it says of each target.

        Raises:
            ValueError: the teacher's weights were not given.
        """
        if self.inputs.teacher is None:
            raise ValueError(
                f"{run.system}: is taught by {self.settings.teacher.system!r}, but its weights were not given"
            )
        teacher = read_teacher(Path(self.inputs.teacher), self.inputs, self.popularity)
        known = self.loss.kept[1:] if isinstance(self.loss, WithoutCold) else torch.arange(1, len(self.popularity))
        kept, temperature = self.settings.kept, self.settings.teacher_temperature
        soft = soft_targets(teacher, histories, len(self.popularity) - 1, kept, temperature, known.cpu())
        self.rest = torch.from_numpy(soft.rest)
        batches = super().batches(run, histories)
        assert isinstance(batches, WindowBatches)
        return TaughtBatches(batches, soft)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The cross-entropy with what the teacher says, and the auxiliary losses of the item encoder.

        `hard` is the cross-entropy with the targets alone, told beside it.
        """
        assert isinstance(histories, TaughtHistories)
        assert histories.likely is not None
        assert histories.shares is not None
        vectors = self.items()
        states, targets, owners = self._examples(histories, vectors)
        compared, scored = self._compared(states), self._scored(vectors)
        hard = self.loss(compared, scored, targets, owners, histories.items)
        soft = self._soft_scores(compared, scored, histories.likely, histories.shares)
        gap = (compared * F.embedding(targets, scored)).sum(dtype=soft.dtype) - soft
        count = torch.full((), len(targets), device=hard.device)
        auxiliary = self.items.auxiliary_losses(vectors, targets)
        return {
            "recommendation": Term(hard + self.settings.weight * gap, count),
            "hard": Term(hard.detach(), count, trained=False),
            **{name: Term(loss) for name, loss in auxiliary.items()},
        }

    def _soft_scores(self, states: Tensor, scored: Tensor, likely: Tensor, shares: Tensor) -> Tensor:
        """() sum over targets of the mean score of the catalogue's items, by the probabilities of the teacher.

        Args:
            states: (targets, dim).
            scored: (items + 1, dim).
            likely: (targets, kept) item ids.
            shares: (targets, kept) their probabilities; what they leave is spread over all items as `rest` says.
        """
        assert self.rest is not None
        self.rest = self.rest.to(scored)
        shares = shares.to(scored)
        means = F.embedding_bag(likely, scored, per_sample_weights=shares, mode="sum")
        means = means + (1 - shares.sum(1, keepdim=True)) * (self.rest @ scored)
        return (states * means).sum(dtype=torch.promote_types(states.dtype, torch.float32))
