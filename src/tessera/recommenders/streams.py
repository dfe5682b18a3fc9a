"""Streams of an item's modalities beside its ID: what each item's text and picture say, as a history is read.

A modality that an item lacks is available to nobody: attention and gates leave it out. An item without any has a
learned vector a modality, as elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.recommenders.bottleneck import Bottleneck
from tessera.recommenders.inputs import Table
from tessera.recommenders.item_encoders.fusion import CrossAttention
from tessera.recommenders.item_encoders.parts import standardized
from tessera.recommenders.missing import Lost, Present, present_in_any
from tessera.settings.systems.findrec import FindRecSystem


class Drawn(NamedTuple):
    """What bottlenecks give of some items."""

    vectors: Tensor
    """(n, modalities, width); where an item lacks a modality but has another, nothing that may be read."""
    available: Tensor
    """(n, modalities) bool: what may be read."""
    known: Tensor
    """(n, modalities) bool: what a table has; a learned vector is none."""
    divergence: Tensor
    """(n, modalities) of each law from the prior, in nats."""


class Modalities(nn.Module):
    """Frozen tables behind a bottleneck each."""

    def __init__(
        self, settings: FindRecSystem, tables: Mapping[str, Table], lost: Mapping[str, Lost | None] | None = None
    ) -> None:
        """
        Args:
            settings: of the system.
            tables: by modality, vectors (items + 1, width) and present (items + 1,).
            lost: which rows are lost in an experiment.
        """
        super().__init__()
        lost = lost or {}
        self.names = list(tables)
        for name, (vectors, present) in tables.items():
            entering = standardized(vectors, present) if settings.standardize else vectors * present[:, None]
            # not saved with the weights: tables are artifacts of their own
            self.register_buffer(f"table_{name}", entering, persistent=False)
        self.present = nn.ModuleDict({name: Present(present, lost.get(name)) for name, (_, present) in tables.items()})
        self.bottlenecks = nn.ModuleDict(
            {
                name: Bottleneck(vectors.shape[1], settings.width, settings.dropout, settings.bottleneck is not None)
                for name, (vectors, _) in tables.items()
            }
        )
        self.absent = nn.Parameter(torch.randn(len(tables), settings.width) * 0.02)
        self.any = present_in_any(tables, lost)
        self.any.watch(self.absent)

    def known(self) -> Tensor:
        """(items + 1, modalities) bool: which rows there are for now."""
        return torch.stack([self._present(name)() for name in self.names], 1)

    def available(self) -> Tensor:
        """(items + 1, modalities) bool: what is read of an item; the learned vectors of one that has nothing."""
        known = self.known()
        available = known | ~known.any(1, keepdim=True)
        return torch.cat([torch.zeros_like(available[:1]), available[1:]])

    def forward(self, items: Tensor, noise: Tensor | None = None) -> Drawn:
        """
        Args:
            items: (n,) ids.
            noise: (n, modalities, width) standard normal; None takes the means.
        """
        known, available = self.known()[items], self.available()[items]
        without = ~known.any(1)[:, None]
        vectors, divergences = [], []
        for number, name in enumerate(self.names):
            own = None if noise is None else noise[:, number]
            drawn, divergence = self.bottlenecks[name](self.get_buffer(f"table_{name}")[items], own)
            vectors.append(torch.where(without, self._stand_in(number, name).to(drawn.dtype), drawn))
            divergences.append(divergence)
        return Drawn(torch.stack(vectors, 1), available, known, torch.stack(divergences, 1))

    def _stand_in(self, number: int, name: str) -> Tensor:
        """(width,) what stands for a modality of an item without any: the mean of all rows if nothing was learned."""
        present = self._present(name).averaged()
        if not self.any.unlearned(self.absent) or not bool(present.any()):
            return self.absent[number]
        mean: Tensor = self.bottlenecks[name](self.get_buffer(f"table_{name}")[present])[0].mean(0)
        return mean

    def _present(self, name: str) -> Present:
        present = self.present[name]
        assert isinstance(present, Present)
        return present


class _SubspaceAttention(CrossAttention):
    """Cross-attention whose heads stay apart: what one found is not mixed with what another did."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.project_out = nn.Identity()  # type: ignore[assignment]


class Exchange(nn.Module):
    """Each modality reads the other along a history, in every subspace for itself."""

    def __init__(self, width: int, heads: int, modalities: int) -> None:
        super().__init__()
        self.heads = heads
        self.reads = nn.ModuleList(_SubspaceAttention(width, heads) for _ in range(modalities if modalities > 1 else 0))
        self.norm = nn.LayerNorm(width // heads)

    def forward(self, asking: Tensor, read: Tensor, visible: Tensor) -> Tensor:
        """(batch, asking, modalities, heads, width of a head) what each modality holds and found in the other.

        Args:
            asking: (batch, asking, modalities, width).
            read: (batch, length, modalities, width).
            visible: (batch, asking, length, modalities) bool: where a position may look, and what is there.
        """
        streams = list(asking.unbind(2))
        for number, attention in enumerate(self.reads):
            other = 1 - number
            seen = visible[..., other]
            nothing = ~seen.any(2, keepdim=True)
            # a softmax needs something; what it then gives is not taken
            among = attention(asking[:, :, number], read[:, :, other], seen | nothing)
            streams[number] = streams[number] + among.masked_fill(nothing, 0)
        together = torch.stack(streams, 2)
        # sizes in full: a process may have no row, of which none can be told
        apart = together.view(*together.shape[:3], self.heads, together.shape[3] // self.heads)
        normed: Tensor = self.norm(apart)
        return normed


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., width) at unit mean square, each for itself."""
    scaled: Tensor = F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
    return scaled
