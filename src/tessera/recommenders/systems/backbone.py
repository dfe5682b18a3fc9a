"""Items under a backbone: items through an item encoder, histories through a backbone, a loss between them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.recommenders.systems.base import Catalogue, TrainingHistories
from tessera.recommenders.systems.encoded_items import EncodedItems
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.backbone import BackboneSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Position


class SequentialRecommender(EncodedItems):
    """An item encoder, a backbone and a loss."""

    def __init__(self, items: ItemEncoder, backbone: Backbone, loss: CatalogueLoss) -> None:
        super().__init__()
        self.items = items
        self.backbone = backbone
        self.loss = loss
        self.max_history = backbone.max_length

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> SequentialRecommender:
        """See `Recommender.build`; the teacher of an aligned system is not needed to judge it."""
        assert isinstance(run.method, BackboneSystem)
        assert run.backbone is not None
        encoder: type[ItemEncoder] = implementation(run.method.items)
        items = encoder.build(run.method.items, inputs, len(popularity) - 1, run.backbone.dim)
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        backbone = encoder.backbone(run.method.items, run.backbone, implementation(run.backbone))
        return cls(items, backbone, loss)

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        size, overlap = self.backbone.window, self.backbone.overlap
        return WindowBatches(histories.offsets, histories.items, size, overlap, run.training.batch_tokens)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of the targets of windows, and the auxiliary losses of the item encoder."""
        vectors = self.items()
        states, targets, owners = self.backbone.examples(histories.items, vectors)
        total = self.loss(states, vectors, targets, owners, histories.items)
        count = torch.full((), len(targets), device=total.device)
        auxiliary = self.items.auxiliary_losses(vectors, targets)
        return {"recommendation": Term(total, count), **{name: Term(loss) for name, loss in auxiliary.items()}}

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the backbone's state after the last item."""
        return self.backbone.encode(histories.items, histories.lengths, catalogue.read)[:, None]
