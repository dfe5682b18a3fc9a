"""What click-through models are called with: the catalogue, which is constant, and a batch of impressions.

A model of `ctr/models` is `Model(settings, catalogue)`, a module that turns a batch into logits `(batch,)`. Histories
may be empty, and items may be ones that no training sample holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from tessera.artifacts.codes import SemanticIds
from tessera.content.fields import FieldContent


@dataclass(frozen=True)
class Catalogue:
    """What models know of the items."""

    items: int
    """Items are 1..`items`; 0 is padding."""
    categories: Tensor
    """(items + 1,) int64 from 1, 0 where an item has none."""
    n_categories: int
    """Categories are 1..`n_categories`."""
    popularity: Tensor
    """(items + 1,) int64 training events an item."""
    codes: SemanticIds | None = None
    """Semantic IDs, where the config names some."""
    codebooks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """(part, level) -> (codes, width) vectors behind the codes; empty for given codes."""
    users: int = 0
    """Users are 1..`users`."""
    met: Tensor | None = None
    """(items + 1,) bool: items of training, as events or as targets that were clicked or not; None goes by events.

    To go by clicks alone would tell training the label: a target that nobody clicked would be an unknown item."""
    content: FieldContent | None = None
    """Texts and pictures, for models that read them."""

    @property
    def known(self) -> Tensor:
        """(items + 1,) bool: items whose id means something."""
        return self.met if self.met is not None else self.popularity > 0


@dataclass(frozen=True)
class Batch:
    """Impressions, one a row."""

    users: Tensor
    """(batch,) int64."""
    items: Tensor
    """(batch,) int64: the items shown."""
    histories: Tensor
    """(batch, length) int64: events strictly before the impression, oldest first, padded on the right with 0."""
    lengths: Tensor
    """(batch,) int64: events of each history; 0 for an empty one."""
    ages: Tensor
    """(batch, length) int64: whole seconds between event and impression, or events where the log has no times; 0 at
    padding."""
    labels: Tensor
    """(batch,) float32: 1 clicked, 0 not."""

    def __len__(self) -> int:
        return len(self.items)

    def latest(self, most: int) -> Batch:
        """The batch with the last `most` events of each history alone."""
        if self.histories.shape[1] <= most:
            return self
        lengths = self.lengths.clamp(max=most)
        # a history that is shorter stays where it is, and its padding with it
        positions = (self.lengths - lengths)[:, None] + torch.arange(most, device=lengths.device)
        parts = {"histories": self.histories.gather(1, positions), "ages": self.ages.gather(1, positions)}
        return replace(self, lengths=lengths, **parts)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        moved = {part.name: getattr(self, part.name).to(device, non_blocking=True) for part in fields(self)}
        return replace(self, **moved)
