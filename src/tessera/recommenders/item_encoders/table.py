"""Items as a frozen item table behind a trainable adapter (as in LLMEmb and ReaEmb).

The adapter runs over all items once a step, not once a position: the same values and gradients, computed for N items
instead of batch x length of them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from tessera.recommenders.item_encoders.base import ItemEncoder
from tessera.settings.recommenders import TableItems


class TableItemEncoder(ItemEncoder):
    """Adapter over a frozen table; items without a row get one learned vector for "absent", never zeros."""

    table: Tensor
    present: Tensor

    def __init__(self, settings: TableItems, vectors: Tensor, present: Tensor, dim: int) -> None:
        """
        Args:
            settings: the adapter.
            vectors: (items + 1, width) the table, row 0 the padding.
            present: (items + 1,) bool, which rows the table has.
            dim: width of the item vectors made.
        """
        super().__init__()
        if settings.standardize:
            known = vectors[present]
            vectors = vectors - known.mean(0)
            vectors = vectors / vectors[present].square().mean().sqrt().clamp(min=1e-12)
        vectors = vectors * present[:, None]
        # not saved with the weights: the table is an artifact of its own
        self.register_buffer("table", vectors, persistent=False)
        self.register_buffer("present", present, persistent=False)
        widths = [vectors.shape[1], *settings.adapter]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(settings.dropout)]
        self.adapter = nn.Sequential(*layers, nn.Linear(widths[-1], dim))
        # begin at the scale of trainable vectors, whatever the scale of the table
        last = self.adapter[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.05 / widths[-1] ** 0.5)
        nn.init.zeros_(last.bias)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)
        self.residual = nn.Parameter(torch.randn(len(vectors), dim) * 0.02) if settings.id_residual else None

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors."""
        adapted = torch.where(self.present[:, None], self.adapter(self.table), self.absent)
        return adapted if self.residual is None else adapted + self.residual
