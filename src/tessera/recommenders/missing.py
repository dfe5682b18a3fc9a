"""Rows that items lack, or have lost: the one place where a learned vector stands for an absent view of an item.

Which items lose their picture or their text is drawn by item id and seed alone, so that every system of an experiment
is trained and judged under the same losses (`settings/missing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tessera.recommenders.availability import lost_items
from tessera.recommenders.inputs import Table
from tessera.settings.missing import Missing


class Lost(NamedTuple):
    """Rows of a table that are lost."""

    rows: Tensor
    """(items + 1,) bool."""
    when: str
    """training, test or both."""
    judged: Tensor | None = None
    """(items + 1,) bool: lost in their place when a run is judged; None where the same are."""

    def at(self, training: bool) -> Tensor | None:
        """(items + 1,) what is lost in training, or when judged; None where nothing is."""
        if not training and self.judged is not None:
            return self.judged
        return None if self.when == ("test" if training else "training") else self.rows


def lost_rows(missing: Missing, modalities: Collection[str], items: int) -> Lost | None:
    """What a table made from some modalities loses: a row goes with any of them; None where nothing does.

    An item's draw depends on its id alone, not on the share: what is lost at one share is lost at every higher one.
    """
    rows = np.zeros(items + 1, bool)
    for modality, gone in lost_items(missing.pattern, missing.shares, missing.seed, items).items():
        if modality in modalities:
            rows |= gone
    return Lost(torch.from_numpy(rows), missing.when) if rows.any() else None


def judged_without(own: Lost | None, judged: Lost | None, items: int) -> Lost | None:
    """What a run lost in training, and what it loses when judged in place of that; None where nothing is."""
    trained = own.at(training=True) if own is not None else None
    if trained is None and judged is None:
        return None
    none = torch.zeros(items + 1, dtype=torch.bool)
    rows, when = (none, "test") if trained is None else (trained, "training")
    return Lost(rows, when, none if judged is None else judged.rows)


class Present(nn.Module):
    """Which items have a row for now, and what stands for a row that there is not."""

    present: Tensor
    lost: Tensor | None
    judged: Tensor | None
    start: Tensor | None

    def __init__(self, present: Tensor, lost: Lost | None = None) -> None:
        """
        Args:
            present: (items + 1, ...) bool, which rows the table has; row 0 is the padding.
            lost: what is lost of them.
        """
        super().__init__()
        self.register_buffer("present", present, persistent=False)
        trained, judged = (None, None) if lost is None else (lost.at(training=True), lost.at(training=False))
        self.register_buffer("lost", trained, persistent=False)
        self.register_buffer("judged", judged, persistent=False)
        self.away = False
        """Whether all rows are taken away for now, as a training step asks that also learns without them."""
        whole = present if present.ndim == 1 else present.flatten(1).any(1)
        met = whole if trained is None else whole & ~trained
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
        return self.lost if self.training else self.judged

    def forward(self) -> Tensor:
        """(items + 1, ...) which rows there are for now."""
        missed = self.missed()
        if missed is None:
            return self.present
        return self.present & ~missed.reshape(-1, *[1] * (self.present.ndim - 1))

    def add(self, present: Tensor) -> None:
        """Put items behind the others; they lose nothing."""
        self.present = torch.cat([self.present, present.to(self.present.device)])
        for name in ("lost", "judged"):
            if (rows := getattr(self, name)) is not None:
                setattr(self, name, torch.cat([rows, rows.new_zeros(len(present))]))

    def averaged(self) -> Tensor:
        """(items + 1, ...) rows whose mean stands for one that was never learned: those there are for now, and all that
        there ever were where every one is lost."""
        present: Tensor = self()
        return present if bool(present.any()) else self.present

    def fill(self, vectors: Tensor, absent: Tensor) -> Tensor:
        """(items + 1, dim) vectors where there is a row, and `absent` (dim,) elsewhere.

        Where training met no item without a row, `absent` was never learned: the mean of all rows stands in its place
        when the run is judged. The padding keeps `absent`, which nothing reads.
        """
        present = self()
        stand_in = self.stand_in(absent, lambda averaged: vectors[averaged].mean(0))
        if stand_in is absent:
            return torch.where(present[:, None], vectors, absent)
        filled = torch.where(present[:, None], vectors, stand_in)
        return torch.cat([torch.where(present[:1, None], vectors[:1], absent), filled[1:]])

    def stand_in(self, absent: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """(dim,) what stands where there is no row: `absent`, or a mean of rows where a judged run never learned it.

        Args:
            absent: (dim,) learned where training met items without a row.
            mean: gives the mean of the rows of a mask (items + 1, ...), of which one at least is true.
        """
        if bool(self()[1:].all()) or not self.unlearned(absent):
            return absent
        averaged = self.averaged()
        return mean(averaged) if bool(averaged.any()) else absent


def present_in_any(tables: Mapping[str, Table], lost: Mapping[str, Lost | None]) -> Present:
    """Which items have a row in any of several tables, and which have lost all that they had.

    Args:
        tables: by name, vectors (items + 1, width) and present (items + 1,).
        lost: by name, what is lost of them.
    """
    present = torch.stack([rows for _, rows in tables.values()]).any(0)

    def gone(training: bool) -> Tensor:
        missed = {name: one.at(training) for name, one in lost.items() if one is not None}
        kept = [rows if (own := missed.get(name)) is None else rows & ~own for name, (_, rows) in tables.items()]
        return present & ~torch.stack(kept).any(0)

    trained = gone(training=True)
    return Present(present, Lost(trained, "training" if bool(trained.any()) else "test", gone(training=False)))
