"""I3-MRec in sequential form: texts and pictures as environments of one preference, under any backbone.

After I3-MRec (ACM MM 2025), which knows no order in time (`i3_mrec_graph`). One backbone reads the histories as each
modality alone has them, and as they are fused: whatever it learns has to hold in every environment. The risk of an
environment is the experiment's loss of that modality alone. Scores are those of the fused vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tessera.evaluation.histories import Histories
from tessera.objectives.catalogue import catalogue_loss
from tessera.objectives.invariance import RiskAndGradient
from tessera.objectives.losses.base import CatalogueLoss
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.environments import Views
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Catalogue, TrainingHistories
from tessera.recommenders.systems.invariant import InvariantRecommender, Modalities
from tessera.recommenders.window_batches import window_batches
from tessera.settings.kinds import implementation
from tessera.settings.runs import Run
from tessera.settings.systems.i3_mrec import I3MRecSystem
from tessera.training.batches import WindowBatches
from tessera.training.losses import Losses, Term
from tessera.training.phases import Position


class I3MRec(InvariantRecommender):
    """Environments under one backbone, their fusion, and ID vectors where the settings want them."""

    def __init__(
        self,
        settings: I3MRecSystem,
        modalities: Modalities,
        backbone: Backbone,
        loss: CatalogueLoss,
        gradient: RiskAndGradient,
        seed: int,
    ) -> None:
        super().__init__(settings, modalities, backbone.dim, seed)
        self.settings, self.backbone, self.loss, self.gradient = settings, backbone, loss, gradient
        count = len(self.environments.of(self.environments.names[0]).present)
        self.residual = nn.Parameter(torch.randn(count, backbone.dim) * 0.02) if settings.ids == "residual" else None
        self.max_history = backbone.max_length

    @classmethod
    def build(cls, run: Run, inputs: RunInputs, popularity: np.ndarray) -> I3MRec:
        """See `Recommender.build`.

        Raises:
            ValueError: a table was not given or says nothing of any item.
        """
        settings = run.method
        assert isinstance(settings, I3MRecSystem)
        assert run.backbone is not None
        modalities = Modalities(settings, run.system, inputs, len(popularity) - 1)
        loss = catalogue_loss(run.loss, torch.from_numpy(popularity))
        gradient = RiskAndGradient(run.loss, loss, torch.from_numpy(popularity))
        return cls(settings, modalities, implementation(run.backbone)(run.backbone), loss, gradient, run.seed)

    def item_rows(self) -> Collection[str]:
        """ID vectors, where there are any."""
        return {"residual": ["residual"], "environment": ["environments.ids"], "none": []}[self.settings.ids]

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`: items with a row in any table; those that were met, too, where IDs are read."""
        rows = torch.stack([self.environments.of(name)() for name in self.environments.tables]).any(0)
        return rows | met if self.item_rows() else rows

    # ------------------------------------------------------------ training

    def batches(self, run: Run, histories: TrainingHistories) -> WindowBatches:
        """Windows of training histories that lose no target."""
        return window_batches(self.backbone, run, histories)

    def losses(self, histories: Histories, at: Position) -> Losses:
        """The loss of fused vectors, of each environment, of how unlike those are, and of the bottleneck."""
        views: Views = self.environments()
        fused: Tensor = self.fusion(views)
        vectors = self._with_ids(fused)
        drawn = self.backbone.draw(histories.items)
        examples = self.backbone.examples(histories.items, vectors, drawn)
        total = self.loss(examples.states, vectors, examples.targets, examples.owners, histories.items)
        count = torch.full((), len(examples.targets), device=total.device)
        risks, gradients, counts = [], [], []
        for number in range(len(views.vectors) if self.environment_weight or self.invariance else 0):
            risk, gradient, known = self._risk(histories.items, views, number, drawn)
            risks.append(risk)
            gradients.append(gradient)
            counts.append(known)
        return {
            "recommendation": Term(total, count),
            **self.environment_losses(risks, gradients, counts, count, at),
            **self.information_losses(views, fused, examples.targets, at),
        }

    def _risk(self, items: Tensor, views: Views, number: int, drawn: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """() risk of an environment, () its gradient by the scale of the scores, () targets: those that it knows."""
        vectors = views.vectors[number]
        examples = self.backbone.examples(items, vectors, drawn)
        kept = views.known[examples.targets, number].nonzero()[:, 0]
        states = examples.states[kept]
        arguments = states, vectors, examples.targets[kept], examples.owners[kept], items
        if self.needs_gradients:
            risk, gradient = self.gradient(*arguments)
        else:
            risk = self.loss(*arguments)
            gradient = torch.zeros_like(risk)
        return risk, gradient, torch.full((), len(kept), device=risk.device)

    def _with_ids(self, fused: Tensor) -> Tensor:
        return fused if self.residual is None else fused + self.residual

    # ------------------------------------------------------------ scores

    def catalogue(self) -> Catalogue:
        """Histories read items as targets are scored."""
        vectors = self._with_ids(self.fusion(self.environments()))
        return Catalogue(vectors, vectors)

    def users(self, histories: Histories, catalogue: Catalogue) -> Tensor:
        """(batch, 1, dim) the state after the last item."""
        return self.backbone.encode(histories.items, histories.lengths, catalogue.read)[:, None]

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `Recommender.add_items`: a new item is what tables say of it, without an ID vector of its own."""
        before = len(self.environments.known())
        super().add_items(tables)
        if self.residual is not None:
            new = len(self.environments.known()) - before
            rows = self.residual.new_zeros(new, self.residual.shape[1])
            self.residual = nn.Parameter(torch.cat([self.residual, rows]))
