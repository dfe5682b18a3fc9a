"""ETA, end-to-end target attention (Chen et al., 2021, arXiv 2108.04468): the k nearest hash codes.

Codes are of the current vectors, so retrieval learns as they do, and what is compared is one integer an event.
"""

from __future__ import annotations

from torch import Tensor

from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.retrieving import TwoStage
from tessera.ctr.retrieval import Groups, Selected, best
from tessera.ctr.simhash import SimHash, agreement
from tessera.settings.clicks.eta import ETASettings


class Model(TwoStage):
    """ETA."""

    def __init__(self, settings: ETASettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.hash = SimHash(self.items.width, settings.bits)
        self.grouped = settings.index

    def hashed(self, items: Tensor) -> Tensor:
        """Hash codes (...) of items (...)."""
        return self.known("codes", lambda some: self.hash(self.items(some)), items)

    def retrieve(self, batch: Batch, histories: Tensor, valid: Tensor) -> Selected:
        target = self.hashed(batch.items)[:, None]
        return best(agreement(self.hashed(histories), target, self.hash.bits), self.k, valid)

    def index(self, history: Tensor, ages: Tensor, valid: Tensor) -> tuple[Groups | None, Tensor, Tensor]:
        """Events by item, where grouped; the hash codes to compare with; which of them are events."""
        groups = Groups(history) if self.grouped else None
        items = groups.labels if groups else history
        return groups, self.hashed(items)[None], (items > 0)[None]

    def compared(self, index: tuple[Groups | None, Tensor, Tensor]) -> int:
        return index[1].shape[1]

    def search(self, index: tuple[Groups | None, Tensor, Tensor], candidates: Tensor) -> Selected:
        groups, codes, valid = index
        scores = agreement(codes, self.hashed(candidates)[:, None], self.hash.bits)
        return groups.best(scores, self.k, valid) if groups else best(scores, self.k, valid)
