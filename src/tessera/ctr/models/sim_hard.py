"""SIM with hard search (Pi et al., CIKM 2020, arXiv 2006.05639): the latest k events of the target's category."""

from __future__ import annotations

import torch
from torch import Tensor

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.retrieving import TwoStage
from tessera.ctr.retrieval import Groups, Selected, best
from tessera.settings.clicks.sim_hard import SIMHardSettings


class Model(TwoStage):
    """SIM, hard search. A target without a category finds nothing."""

    def __init__(self, settings: SIMHardSettings, catalogue: Catalogue) -> None:
        """
        Raises:
            ValueError: no item has a category.
        """
        super().__init__(settings, catalogue)
        if not catalogue.n_categories:
            raise ValueError(
                "SIM's hard search finds events of the target's category, and no item has one: name an attribute of "
                "the items in ctr.samples.category"
            )
        self.register_buffer("_category", catalogue.categories, persistent=False)

    def retrieve(self, batch: Batch, histories: Tensor, valid: Tensor) -> Selected:
        category = self.get_buffer("_category")
        wanted = category[batch.items][:, None]
        same = (category[histories] == wanted) & (wanted > 0) & valid
        return best(torch.zeros_like(histories), self.k, same)

    def index(self, history: Tensor, ages: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The events by category, the latest first: where each category begins and ends."""
        groups = Groups(self.get_buffer("_category")[history])
        return groups.labels, groups.counts, groups.events

    def search(self, index: tuple[Tensor, Tensor, Tensor], candidates: Tensor) -> Selected:
        labels, counts, events = index
        wanted = self.get_buffer("_category")[candidates]
        group = torch.searchsorted(labels, wanted).clamp(max=len(labels) - 1)
        size = counts[group] * ((labels[group] == wanted) & (wanted > 0))
        place = torch.arange(self.k, device=candidates.device)
        starts = (counts.cumsum(0) - counts)[group]
        positions = events[(starts[:, None] + place).clamp(max=len(events) - 1)]
        return Selected.in_time(positions, place < size[:, None], len(events), self.k)
