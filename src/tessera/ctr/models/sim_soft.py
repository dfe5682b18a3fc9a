"""SIM with soft search (Pi et al., CIKM 2020, arXiv 2006.05639): the k events with the largest inner product.

The vectors of the search are of their own and learn by a task of their own (section 3.1): the click, told from the
events weighted by their inner products with the target.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import ItemVectors, Tower, filled, length_mask
from tessera.ctr.models.retrieving import TwoStage
from tessera.ctr.retrieval import Groups, Selected, best, ordered
from tessera.settings.clicks.sim_soft import SIMSoftSettings


class Model(TwoStage):
    """SIM, soft search. `auxiliary` is the loss of the search."""

    def __init__(self, settings: SIMSoftSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.search_weight = settings.search_weight
        self.search_items = ItemVectors(settings, catalogue, settings.read_codes)
        width = self.search_items.width
        self.search_query = nn.Linear(width, width, bias=False)
        self.search_tower = Tower(width, 1, settings.hidden, settings.dropout)

    def auxiliary(self, batch: Batch) -> Tensor:
        """What is added to the loss of the click."""
        valid = length_mask(batch.lengths, filled(batch.histories).shape[1])
        events = self.search_items(filled(batch.histories)) * valid[..., None]
        target = self.search_items(batch.items)
        products = (events @ self.search_query(target)[..., None]).squeeze(-1)
        interest = (products[:, None] @ events).squeeze(1) / batch.lengths.clamp(min=1)[:, None]
        logits = self.search_tower(target, [interest])
        return self.search_weight * F.binary_cross_entropy_with_logits(logits, batch.labels)

    def retrieve(self, batch: Batch, histories: Tensor, valid: Tensor) -> Selected:
        query = self.search_query(self.search_items(batch.items))
        # summed number by number: equal items then have equal products wherever they stand
        products = (self.known("search", self.search_items, histories) * query[:, None]).sum(-1)
        return best(ordered(products), self.k, valid)

    def index(self, history: Tensor, ages: Tensor, valid: Tensor) -> tuple[Groups, Tensor]:
        """Events by item, and the items' vectors."""
        groups = Groups(history)
        return groups, self.known("search", self.search_items, groups.labels)

    def compared(self, index: tuple[Groups, Tensor]) -> int:
        return len(index[0])

    def search(self, index: tuple[Groups, Tensor], candidates: Tensor) -> Selected:
        groups, vectors = index
        products = self.search_query(self.search_items(candidates)) @ vectors.T
        return groups.best(ordered(products), self.k, (groups.labels > 0)[None])
