"""Items under a backbone: items through an item encoder, histories through a backbone, a loss between them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.backbone import BackboneSystem
from tessera.training.batches import WindowBatches


class SequentialRecommender(nn.Module):
    """`encode` histories, `score` items; called with a batch of histories it gives its training loss."""

    def __init__(self, items: ItemEncoder, backbone: Backbone, loss: CatalogueLoss) -> None:
        super().__init__()
        self.items = items
        self.backbone = backbone
        self.loss = loss

    def forward(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the targets of histories (batch, length), and the number of targets.

        A further loss of the item encoder stands for the whole step: it is counted once a target, so that the mean
        over the targets of all processes holds it once.
        """
        vectors = self.items()
        states, targets, owners = self.backbone.examples(histories, vectors)
        total = self.loss(states, vectors, targets, owners, histories)
        further = self.items.further_loss(vectors, targets)
        if further is not None:
            total = total + further * len(targets)
        return total, torch.full((), len(targets), device=total.device)

    def encode(self, histories: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """(batch, dim) states of histories (batch, length), padded on the right, of the given lengths."""
        return self.backbone.encode(histories, lengths, vectors)

    def score(self, states: Tensor, vectors: Tensor) -> Tensor:
        """(batch, items) scores of the whole catalogue."""
        return states @ vectors[1:].T


class ModelScorer:
    """A trained model behind the judge's interface: item vectors are made once, not once a batch."""

    def __init__(self, model: SequentialRecommender, device: torch.device) -> None:
        self.model = model.eval()
        self.device = device
        self.max_history: int | None = model.backbone.max_length
        with torch.no_grad():
            self.vectors: Tensor = model.items()

    @torch.no_grad()
    def __call__(self, histories: np.ndarray, lengths: np.ndarray) -> Tensor:
        """(batch, items) scores for histories (batch, length) padded on the right."""
        scores: Tensor = self.model.score(self.states(histories, lengths), self.vectors)
        return scores.float()

    @property
    def item_vectors(self) -> Tensor:
        """(items, dim) what states are compared with."""
        return self.vectors[1:]

    @property
    def takes_new(self) -> bool:
        """Whether items that training did not know can be scored: where their content alone says what they are."""
        return self.model.items.TAKES_NEW

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Score items that training did not know, too; see `ItemEncoder.add_items`."""
        self.model.items.add_items(tables)
        self.vectors = self.model.items()

    @torch.no_grad()
    def states(self, histories: np.ndarray, lengths: np.ndarray) -> Tensor:
        """(batch, dim) states after histories as they are scored."""
        rows = torch.from_numpy(histories).long().to(self.device)
        return self.model.encode(rows, torch.from_numpy(lengths).to(self.device), self.vectors)


def build(run: Run, inputs: RunInputs, popularity: np.ndarray) -> SequentialRecommender:
    """The untrained model of a run under a backbone; the caller has seeded torch.

    Args:
        run: the resolved run.
        inputs: the files that it reads; the teacher of an aligned system is not needed to judge it.
        popularity: (items + 1,) training interactions an item.
    """
    assert isinstance(run.method, BackboneSystem)
    assert run.backbone is not None
    encoder: type[ItemEncoder] = implementation(run.method.items)
    items = encoder.build(run.method.items, inputs, len(popularity) - 1, run.backbone.dim)
    loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
    backbone = encoder.backbone(run.method.items, run.backbone, implementation(run.backbone))
    return SequentialRecommender(items, backbone, loss)


def batches(model: SequentialRecommender, run: Run, offsets: np.ndarray, items: np.ndarray) -> WindowBatches:
    """Windows of training histories that lose no target."""
    backbone = model.backbone
    return WindowBatches(offsets, items, backbone.window, backbone.overlap, run.training.batch_tokens)


def scorer(model: SequentialRecommender, run: Run, device: torch.device) -> ModelScorer:
    """The model as the judge asks it."""
    return ModelScorer(model, device)
