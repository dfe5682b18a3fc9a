"""Rows that items lack, or have lost: the one place where a learned vector stands for an absent view of an item.

Which items lose their picture or their text is drawn by item id and seed alone, so that every system of an experiment
is trained and judged under the same losses (`settings/missing.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tessera.settings.missing import Missing


class Lost(NamedTuple):
    """Rows of a table that are lost."""

    rows: Tensor
    """(items + 1,) bool."""
    when: str
    """training, test or both."""


def lost_rows(missing: Missing, modalities: Collection[str], items: int) -> Lost | None:
    """What a table made from some modalities loses: a row goes with any of them; None where nothing does.

    An item's draw depends on its id alone, not on the share: what is lost at one share is lost at every higher one.
    """
    rows = np.zeros(items + 1, bool)
    for number, (modality, share) in enumerate(missing.shares.items()):
        if modality in modalities:
            rows |= np.random.default_rng((missing.seed, number)).random(items + 1) < share
    return Lost(torch.from_numpy(rows), missing.when) if rows.any() else None


class Present(nn.Module):
    """Which items have a row for now, and what stands for a row that there is not."""

    present: Tensor
    lost: Tensor | None
    start: Tensor | None

    def __init__(self, present: Tensor, lost: Lost | None = None) -> None:
        """
        Args:
            present: (items + 1, ...) bool, which rows the table has; row 0 is the padding.
            lost: what is lost of them.
        """
        super().__init__()
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("lost", None if lost is None else lost.rows, persistent=False)
        self.when = "both" if lost is None else lost.when
        self.away = False
        """Whether all rows are taken away for now, as a training step asks that also learns without them."""
        whole = present if present.ndim == 1 else present.flatten(1).any(1)
        met = whole if lost is None or lost.when == "test" else whole & ~lost.rows
        self.learns = not bool(met[1:].all())
        """Whether training has an item without a row, for which a vector could be learned."""
        self.register_buffer("start", None)

    def watch(self, absent: Tensor) -> None:
        """Keep what the learned vector (dim,) begins as: one that is never read in training stays so, to the bit.

        Items without a row may all be ones that a loss leaves out, as `cold_items: left_out` does with those that
        nobody met. What it began as is saved with the weights.
        """
        self.start = absent.detach().clone()

    def unlearned(self, absent: Tensor) -> bool:
        """Whether a run is judged whose vector `absent` for rows that there are not was never learned."""
        if self.training:
            return False
        return not self.learns or (self.start is not None and torch.equal(absent, self.start))

    def missed(self) -> Tensor | None:
        """(items + 1,) which items have lost the row for now; None where none has."""
        if self.away:
            return torch.ones(len(self.present), dtype=torch.bool, device=self.present.device)
        if self.lost is None or self.when == ("test" if self.training else "training"):
            return None
        return self.lost

    def forward(self) -> Tensor:
        """(items + 1, ...) which rows there are for now."""
        missed = self.missed()
        if missed is None:
            return self.present
        return self.present & ~missed.reshape(-1, *[1] * (self.present.ndim - 1))

    def add(self, present: Tensor) -> None:
        """Put items behind the others; they lose nothing."""
        self.present = torch.cat([self.present, present.to(self.present.device)])
        if self.lost is not None:
            self.lost = torch.cat([self.lost, self.lost.new_zeros(len(present))])

    def fill(self, vectors: Tensor, absent: Tensor) -> Tensor:
        """(items + 1, dim) vectors where there is a row, and `absent` (dim,) elsewhere.

        Where training met no item without a row, `absent` was never learned: the mean of all rows stands in its place
        when the run is judged. The padding keeps `absent`, which nothing reads.
        """
        present = self()
        if not bool(present[1:].all()) and self.unlearned(absent):
            stand_in = absent if not bool(present.any()) else vectors[present].mean(0)
            filled = torch.where(present[:, None], vectors, stand_in)
            return torch.cat([torch.where(present[:1, None], vectors[:1], absent), filled[1:]])
        return torch.where(present[:, None], vectors, absent)
