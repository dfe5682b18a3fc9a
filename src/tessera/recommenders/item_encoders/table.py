"""Items as a frozen item table behind a trainable adapter (LLMEmb, AAAI 2025, and ReaEmb, 2026).

The adapter runs over all items once a step, not once a position: the same values and gradients, computed for N items
instead of batch x length of them. With `align` a contrastive loss draws the adapted vectors towards those of a trained
ID run: the second stage of LLMEmb, recommendation adaptation training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from tessera.objectives.contrastive import soft_contrastive
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder, View
from tessera.recommenders.item_encoders.parts import make_adapter, of_all_processes, standard
from tessera.recommenders.missing import Lost, Present
from tessera.settings.items.table import TableItems


class TableItemEncoder(ItemEncoder):
    """Adapter over a frozen table; items without a row get one learned vector for "absent", never zeros."""

    table: Tensor
    teacher: Tensor | None

    def __init__(
        self,
        settings: TableItems,
        vectors: Tensor,
        present: Tensor,
        dim: int,
        teacher: Tensor | None = None,
        lost: Lost | None = None,
    ) -> None:
        """
        Args:
            settings: the adapter.
            vectors: (items + 1, width) the table, row 0 the padding.
            present: (items + 1,) bool, which rows the table has.
            dim: width of the item vectors made.
            teacher: (items + 1, dim) frozen vectors to align with; None aligns with nothing, as when judging.
            lost: which rows are lost in an experiment.
        """
        super().__init__()
        self.standard = standard(vectors, present) if settings.standardize else None
        self.name = settings.table
        vectors = self._entering(vectors, present)
        if settings.shift_last_item:
            vectors[-1] = 0
        # not saved with the weights: the table is an artifact of its own
        self.register_buffer("table", vectors, persistent=False)
        self.present = Present(present, lost)
        self.register_buffer("teacher", teacher, persistent=False)
        self.align = settings.align
        self.adapter = make_adapter([vectors.shape[1], *settings.adapter], dim, settings.dropout, settings.activation)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)
        self.present.watch(self.absent)
        self.residual = nn.Parameter(torch.randn(len(vectors), dim) * 0.02) if settings.id_residual else None

    @classmethod
    def build(cls, settings: TableItems, inputs: RunInputs, items: int, dim: int) -> TableItemEncoder:
        """See `ItemEncoder.build`."""
        vectors, present = inputs.read_table(settings.table, items)
        teacher = inputs.read_teacher(items, dim) if settings.align else None
        return cls(settings, vectors, present, dim, teacher, inputs.lost(settings.table, items))

    def _entering(self, vectors: Tensor, present: Tensor) -> Tensor:
        if self.standard is not None:
            mean, scale = self.standard
            vectors = (vectors - mean) / scale
        return vectors * present[:, None]

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """See `ItemEncoder.add_items`: a new item is what the table says of it, without an offset of its own."""
        vectors, present = tables[self.name]
        entering = self._entering(vectors.float(), present)
        self.table = torch.cat([self.table, entering.to(self.table.device)])
        self.present.add(present)
        if self.residual is not None:
            self.residual = nn.Parameter(
                torch.cat([self.residual, self.residual.new_zeros(len(vectors), 1).expand(-1, self.residual.shape[1])])
            )

    def item_rows(self) -> Collection[str]:
        """The offset an item, where it has one."""
        return [] if self.residual is None else ["residual"]

    def views(self) -> Mapping[str, View]:
        """See `ItemEncoder.views`."""
        return {"table": View(self.name, self.present, lambda items: self.table[items])}

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`: items with a row; those that were met, too, where each has an offset of its own."""
        present: Tensor = self.present()
        return present if self.residual is None else present | met

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors."""
        adapted = self.present.fill(self._adapted(), self.absent)
        return adapted if self.residual is None else adapted + self.residual

    def some(self, items: Tensor) -> Tensor:
        """See `ItemEncoder.some`; rows are adapted for all items at once, as `forward` needs them."""
        if not self.training:
            return super().some(items)
        adapted = torch.where(self.present()[items][:, None], self._adapted()[items], self.absent)
        return adapted if self.residual is None else adapted + self.residual[items]

    def _adapted(self) -> Tensor:
        return self.once("adapted", lambda: self.adapter(self.table))

    def auxiliary_losses(self, vectors: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The alignment of the targets' vectors with the teacher's: LLMEmb, recommendation adaptation training.

        Targets without a row in the table share one vector, which no teacher's vector belongs to: they are left out.

        Args:
            vectors: (items + 1, dim) what `forward` gave.
            targets: (targets,) item ids that the step predicts.
        """
        if self.teacher is None or self.align is None:
            return {}
        targets = of_all_processes(targets)
        targets = targets[self.present()[targets]]
        if self.align.deduplicate:
            targets = targets.unique()  # type: ignore[no-untyped-call]
        if not len(targets):
            return {"alignment": vectors.new_zeros(())}
        loss = soft_contrastive(
            self.teacher[targets],
            vectors[targets],
            self.align.temperature,
            self.align.target_temperature,
            self.align.normalize,
        )
        return {"alignment": self.align.weight * loss}
