"""Modalities as environments: what each alone says of the items, and their fusion by what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.backbones.dropout import Dropout
from tessera.recommenders.inputs import Table
from tessera.recommenders.item_encoders.parts import make_adapter, standard
from tessera.recommenders.missing import Lost, Present
from tessera.settings.systems.i3_mrec_base import InvariantModalities


class Views(NamedTuple):
    """What environments say of the items."""

    vectors: Tensor
    """(environments, items + 1, dim)."""
    known: Tensor
    """(items + 1, environments) bool: what is really there for now."""


class Environments(nn.Module):
    """Frozen tables behind a projection each, and by choice trained ID vectors as one more environment."""

    def __init__(
        self,
        settings: InvariantModalities,
        tables: Mapping[str, Table],
        lost: Mapping[str, Lost | None],
        dim: int,
    ) -> None:
        """
        Args:
            settings: of the system; where it knows IDs, their vectors are an environment that every item has.
            tables: by modality, vectors (items + 1, width) and present (items + 1,).
            lost: which rows are lost in an experiment.
            dim: width of item vectors.
        """
        super().__init__()
        self.settings, self.tables = settings, dict(settings.modalities)
        self.standards = {name: standard(*table) for name, table in tables.items()} if settings.standardize else {}
        for name, (vectors, present) in tables.items():
            # not saved with the weights: tables are artifacts of their own
            self.register_buffer(f"table_{name}", self._entering(name, vectors, present), persistent=False)
        widths = {name: vectors.shape[1] for name, (vectors, _) in tables.items()}
        self.project = nn.ModuleDict(
            {name: make_adapter([width, *settings.adapter], dim, 0.0) for name, width in widths.items()}
        )
        self.present = nn.ModuleDict({name: Present(rows, lost.get(name)) for name, (_, rows) in tables.items()})
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.randn(dim) * 0.02) for name in tables})
        for name in tables:
            self.of(name).watch(self.absent[name])
        count = len(next(iter(tables.values()))[1])
        self.ids = nn.Parameter(torch.randn(count, dim) * 0.02) if settings.knows_ids else None
        if self.ids is not None:
            self.present["ids"] = Present(torch.arange(count) > 0)
        self.names = [*tables, *(["ids"] if settings.knows_ids else [])]
        """Of the environments, in their order."""
        self.widths = widths
        """Of the tables, by modality."""

    def of(self, name: str) -> Present:
        """Which items an environment knows."""
        present = self.present[name]
        assert isinstance(present, Present)
        return present

    def table(self, name: str) -> Tensor:
        """(items + 1, width) a table as it is projected."""
        return self.get_buffer(f"table_{name}")

    def _entering(self, name: str, vectors: Tensor, present: Tensor) -> Tensor:
        if name in self.standards:
            mean, scale = self.standards[name]
            return (vectors - mean) / scale * present[:, None]
        return F.normalize(vectors, dim=1) * present[:, None]

    def known(self) -> Tensor:
        """(items + 1, environments) bool: what is really there for now."""
        return torch.stack([self.of(name)() for name in self.names], 1)

    def forward(self) -> Views:
        """What all say of all items; a learned vector where an environment knows nothing of an item."""
        vectors = [self.ids if name == "ids" and self.ids is not None else self._projected(name) for name in self.names]
        return Views(torch.stack(vectors), self.known())

    def _projected(self, name: str) -> Tensor:
        return self.of(name).fill(self.project[name](self.table(name)), self.absent[name])

    @torch.no_grad()
    def add_items(self, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Put items behind those that training knew; an environment of IDs knows none of them.

        Args:
            tables: by the tables' names, vectors (new, width) as the table has them and present (new,).
        """
        for name, table in self.tables.items():
            vectors, present = tables[table]
            entering = self._entering(name, vectors.float(), present)
            known = self.table(name)
            self.register_buffer(f"table_{name}", torch.cat([known, entering.to(known.device)]), persistent=False)
            self.of(name).add(present)
        if self.ids is not None:
            self.of("ids").add(present.new_zeros(len(present)))
            self.ids = nn.Parameter(torch.cat([self.ids, self.ids.new_zeros(len(present), self.ids.shape[1])]))


class MaskedFusion(nn.Module):
    """One vector an item of those that its modalities have: tanh(dropout(W mean)), W the identity at the start.

    An item without any has a learned vector in the place of the mean.
    """

    def __init__(self, settings: InvariantModalities, present: Present, dim: int) -> None:
        """
        Args:
            settings: of the system.
            present: which items any environment knows.
            dim: width of item vectors.
        """
        super().__init__()
        self.settings = settings
        self.weight = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            self.weight.weight.copy_(torch.eye(dim))
        self.dropout = Dropout(settings.dropout)
        self.absent = nn.Parameter(torch.randn(dim) * 0.02)
        self.any = present
        self.any.watch(self.absent)

    def forward(self, views: Views) -> Tensor:
        """(items + 1, dim) the fused vectors of all items."""
        return self.made(self.any.fill(self.mean(self.entering(views.vectors), views.known), self.absent))

    def entering(self, vectors: Tensor) -> Tensor:
        """What is fused: without a way back to the modalities where `detach` says so."""
        return vectors.detach() if self.settings.detach else vectors

    def mean(self, vectors: Tensor, available: Tensor) -> Tensor:
        """(n, dim) the mean of what is available; zeros where nothing is.

        Args:
            vectors: (environments, n, dim).
            available: (n, environments) bool.
        """
        shown = available.T[..., None]
        return (vectors * shown).sum(0) / self.divisor(available)

    def divisor(self, available: Tensor) -> Tensor:
        """(n, 1) what the sum of available vectors is divided by."""
        return available.sum(1, keepdim=True).clamp(min=1)

    def made(self, means: Tensor) -> Tensor:
        """(n, dim) of means (n, dim)."""
        fused: Tensor = self.dropout(self.weight(means))
        return fused.tanh()
