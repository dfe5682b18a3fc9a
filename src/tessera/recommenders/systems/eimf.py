"""EIMF-style multi-interest learning: several vectors a user, taught by written interests of typical users.

A reconstruction: of the paper (arXiv 2411.09410) the abstract was known here (docs/systems/eimf.md). The behavioural
module makes K vectors of a history, of which the best counts for an item. The semantic module knows what a language
model wrote of some typical users; in training alone it aligns that with their vectors and predicts across. Scores are
those of the behavioural module, whether the other is there or not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tessera.artifacts.logs import log
from tessera.evaluation.histories import Histories
from tessera.objectives.best_of_several import best_of_several
from tessera.objectives.catalogue import WithoutCold, catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import at_places
from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.inputs import RunInputs, constant
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.multi_interest import multi_interest, nearest
from tessera.recommenders.semantic_module import SemanticModule
from tessera.recommenders.systems.base import Catalogue, TrainingHistories, Validate
from tessera.recommenders.systems.encoded_items import EncodedItems
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.eimf import EIMFSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Phase, Position


class EIMF(EncodedItems):
    """An item encoder, a network with K vectors a user, and the semantic module of training."""

    def __init__(
        self, settings: EIMFSystem, items: ItemEncoder, loss: CatalogueLoss, semantic: SemanticModule | None = None
    ) -> None:
        super().__init__()
        self.settings, self.items, self.loss = settings, items, loss
        self.dropout = Dropout(settings.dropout)
        self.network = multi_interest(settings)
        self.semantic = semantic
        """What is learned of written interests; None after training loses nothing."""
        self.max_history = settings.max_length

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> EIMF:
        """See `Recommender.build`.

        Raises:
            ValueError: the table of interests was not given.
        """
        settings = run.method
        assert isinstance(settings, EIMFSystem)
        encoder: type[ItemEncoder] = implementation(settings.items)
        items = encoder.build(settings.items, inputs, len(popularity) - 1, settings.dim)
        semantic = None
        if settings.interests is not None:
            interests = inputs.read_interests(settings.interests)
            if constant(interests.vectors, interests.present):
                log.warning(
                    "%s: the table %r says the same of every interest: it can teach nothing",
                    run.system,
                    settings.interests,
                )
            semantic = SemanticModule(settings, interests, run.seed)
        return cls(settings, items, catalogue_loss(run.loss, torch.from_numpy(popularity)), semantic)

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        size = self.settings.max_length + 1
        return WindowBatches(histories.offsets, histories.items, size, 1, run.training.batch_tokens)

    def program(self, run: Run, histories: TrainingHistories, validate: Validate) -> list[Phase]:
        """One phase of epochs; see `Recommender.program`.

        Raises:
            ValueError: the interests are not those of users of this dataset.
        """
        if self.semantic is not None:
            self.semantic.meet(histories, self.settings.max_length)
        return super().program(run, histories, validate)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows, that of the item encoder, and those of the semantic module."""
        inputs, targets = histories.items[:, :-1], histories.items[:, 1:]
        vectors = self.items()
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
        interests = self._interests(inputs, causal & (inputs > 0)[:, None], vectors)
        positions = (targets > 0).flatten().nonzero().squeeze(1)
        chosen, owners = targets.flatten()[positions], positions // length
        states = at_places(interests, positions)
        if self.settings.loss_over == "nearest" or states.shape[1] == 1:
            near = nearest(states, F.embedding(chosen, vectors))
            total = self.loss(near, vectors, chosen, owners, histories.items)
        else:
            total = self._best(states, vectors, chosen)
        auxiliary = self.items.auxiliary_losses(vectors, chosen)
        return {
            "recommendation": Term(total, torch.full((), len(chosen), device=total.device)),
            **{name: Term(loss) for name, loss in auxiliary.items()},
            **({} if self.semantic is None else self._semantic_losses(self.semantic, vectors, at)),
        }

    def _best(self, states: Tensor, vectors: Tensor, chosen: Tensor) -> Tensor:
        """The loss of the best of a user's vectors, over the items that the run's loss is over."""
        over, rows = self._over(vectors, chosen)
        return best_of_several(states, over[1:], rows - 1)

    def _over(self, vectors: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the items that the run's loss is over, the padding first, and where the chosen ones stand there.

        Args:
            vectors: (items + 1, dim).
            chosen: (n,) item ids.
        """
        if not isinstance(self.loss, WithoutCold):
            return vectors, chosen
        known, place = self.loss.among(vectors)
        return known, place[chosen]

    def _semantic_losses(self, semantic: SemanticModule, vectors: Tensor, at: Position) -> Losses:
        """What is learned from some typical users, the same in all processes of a step."""
        met = semantic.draw(at, vectors.device)
        histories = met.histories
        assert histories.targets is not None
        over, rows = self._over(vectors, histories.targets)
        asked = met._replace(histories=replace(histories, targets=rows))
        return semantic.losses(asked, self._last(histories.items, histories.lengths, vectors), over)

    # ------------------------------------------------------------ scores

    def _interests(self, items: Tensor, visible: Tensor, vectors: Tensor) -> Tensor:
        """(batch, ends, K, dim) of histories (batch, length), of which each end sees a part."""
        interests: Tensor = self.network(self.dropout(F.embedding(items, vectors)), visible)
        return interests

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, K, dim) a user's vectors after the last item."""
        return self._last(histories.items, histories.lengths, catalogue.read)

    def _last(self, items: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """(batch, K, dim) after the last of items (batch, length)."""
        positions = torch.arange(items.shape[1], device=items.device)
        return self._interests(items, (positions < lengths[:, None])[:, None], vectors)[:, 0]
