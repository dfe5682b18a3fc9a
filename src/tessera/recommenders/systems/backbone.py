"""Items under a backbone: items through an item encoder, histories through a backbone, a loss between them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone, Examples
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.systems.base import Catalogue, TrainingHistories
from tessera.recommenders.systems.encoded_items import EncodedItems
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.backbone import BackboneSystem
from tessera.training.batches import PrefixBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Batches, Position


class SequentialRecommender(EncodedItems):
    """An item encoder, a backbone and a loss."""

    def __init__(self, items: ItemEncoder, backbone: Backbone, loss: CatalogueLoss) -> None:
        super().__init__()
        self.items = items
        self.backbone = backbone
        self.loss = loss
        self.max_history = backbone.max_length
        self.reads_times = backbone.reads_times
        self.scale: Scale | None = None
        """Of cosines; None scores by inner products."""

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> SequentialRecommender:
        """See `Recommender.build`; the teacher of an aligned system is not needed to judge it."""
        assert isinstance(run.method, BackboneSystem)
        assert run.backbone is not None
        encoder: type[ItemEncoder] = implementation(run.method.items)
        items = encoder.build(run.method.items, inputs, len(popularity) - 1, run.backbone.dim)
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        backbone = encoder.backbone(run.method.items, run.backbone, implementation(run.backbone))
        made = cls(items, backbone, loss)
        if run.method.scores == "cosine":
            made.scale = Scale(run.method.temperature, run.method.learn_temperature)
        return made

    def batches(self, run: Run, histories: TrainingHistories) -> Batches:
        """Windows of training histories that lose no target, or every target by itself after what was before it."""
        assert isinstance(run.method, BackboneSystem)
        if run.method.samples == "prefixes":
            most, tokens = self.backbone.max_length, run.training.batch_tokens
            return PrefixBatches(histories.offsets, histories.items, most, tokens, times=histories.times)
        return window_batches(self.backbone, run, histories)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows or prefixes, and the auxiliary losses of the item encoder."""
        vectors = self.items()
        states, targets, owners = self._examples(histories, vectors)
        total = self.loss(self._compared(states), self._scored(vectors), targets, owners, histories.items)
        count = torch.full((), len(targets), device=total.device)
        auxiliary = self.items.auxiliary_losses(vectors, targets)
        return {"recommendation": Term(total, count), **{name: Term(loss) for name, loss in auxiliary.items()}}

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the backbone's state after the last item, as it is compared with item vectors."""
        return self._compared(self._encode(histories, catalogue.read))[:, None]

    def catalogue(self) -> Catalogue:
        """Histories read items as they are; with cosines they are scored by their directions."""
        vectors: Tensor = self.items()
        return Catalogue(vectors, self._scored(vectors))

    def _examples(self, histories: Histories, vectors: Tensor) -> Examples:
        """What a batch of windows predicts, or one of prefixes, which has targets of its own."""
        if histories.targets is None:
            return self.backbone.examples(histories.items, vectors, **self._times(histories))
        owners = torch.arange(len(histories), device=vectors.device)
        return Examples(self._encode(histories, vectors), histories.targets, owners)

    def _encode(self, histories: Histories, vectors: Tensor) -> Tensor:
        return self.backbone.encode(histories.items, histories.lengths, vectors, **self._times(histories))

    def _times(self, histories: Histories) -> dict[str, Tensor | None]:
        """The times of a batch, for a backbone that takes them."""
        return {"times": histories.times} if self.reads_times else {}

    def _scored(self, vectors: Tensor) -> Tensor:
        return vectors if self.scale is None else directions(vectors)

    def _compared(self, states: Tensor) -> Tensor:
        return states if self.scale is None else self.scale(states)


def directions(vectors: Tensor) -> Tensor:
    """Vectors (..., dim) of length one; the padding's stays zero."""
    return F.normalize(vectors, dim=-1, eps=1e-6)


class Scale(nn.Module):
    """Directions of states over a temperature: their products with directions of items are cosines over it."""

    def __init__(self, temperature: float, learned: bool) -> None:
        super().__init__()
        log = torch.tensor(math.log(temperature))
        if learned:
            self.log_temperature = nn.Parameter(log)
        else:
            self.register_buffer("log_temperature", log, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """The same shape as states (..., dim)."""
        return directions(states) * (-self.log_temperature).exp()
