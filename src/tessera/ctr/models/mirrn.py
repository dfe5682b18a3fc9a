"""MIRRN, multi-granularity interest retrieval and refinement network (Xu et al., KDD 2025, arXiv 2411.15005).

Three queries (the target, the last events, all events) each retrieve k events by SimHash. A filter in the frequency
domain mixes the events of a route, their mean is the route's interest, and the target attends to the three. Two
faults of the published code are mended, and kept behind `preset: official`: its product with a block's matrix takes
the diagonal alone, and padding of short histories enters filter and attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tessera.ctr.attention import TargetAttention
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.models.base import RoutedModel, ShortTerm, Tower, filled, length_mask
from tessera.ctr.retrieval import Groups, Selected, best, latest
from tessera.ctr.simhash import SimHash, agreement
from tessera.settings.clicks.mirrn import MIRRNSettings

_POSITION_SCALE = 0.02
"""How much of a position's vector is added to an event's, as published."""


class FourierFilter(nn.Module):
    """Events (rows, k, width) mixed over time: spectrum, a matrix for each frequency and block, and back; residual,
    layer norm."""

    decays = True
    """A linear layer a frequency."""

    def __init__(self, k: int, width: int, blocks: int, diagonal: bool) -> None:
        super().__init__()
        if width % blocks:
            raise ValueError(
                f"item vectors of width {width} cannot be cut into {blocks} blocks: "
                "choose dim, category_dim and heads so that they can"
            )
        self.k, self.blocks, self.diagonal = k, blocks, diagonal
        size = width // blocks
        self.weight = nn.Parameter(torch.randn(k // 2 + 1, blocks, size, size, 2) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, events: Tensor, valid: Tensor) -> Tensor:
        """(rows, k, width); zeros where `valid` (rows, k) says that there is no event."""
        if not len(events):  # no spectrum can be made of nothing
            return events
        events = events * valid[..., None]
        spectrum = torch.fft.rfft(events, dim=1, norm="ortho").unflatten(-1, (self.blocks, -1))
        weight = torch.view_as_complex(self.weight)
        if self.diagonal:
            mixed = spectrum * weight.diagonal(dim1=-2, dim2=-1)
        else:
            mixed = torch.einsum("rfbd,fbde->rfbe", spectrum, weight)
        back = torch.fft.irfft(mixed.flatten(2), n=self.k, dim=1, norm="ortho")
        filtered: Tensor = self.norm(events + back) * valid[..., None]
        return filtered


@dataclass
class Prepared:
    """What the candidates of a request share."""

    history: Tensor
    """(1, length) items."""
    groups: Groups | None
    codes: Tensor
    """(1, groups or events) hash codes to compare with."""
    valid: Tensor
    """Which of them are events."""
    interests: list[tuple[Tensor, Tensor]]
    """Of the recent and the global route: (1, width) and whether anything was found (1,)."""
    short: tuple[Tensor, Tensor]


class Model(RoutedModel):
    """MIRRN, with attention over the last events beside it."""

    def __init__(self, settings: MIRRNSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self.k, self.recent, self.mask, self.grouped = settings.k, settings.recent, settings.mask, settings.index
        width = self.items.width
        self.hash = SimHash(width, settings.bits)
        self.positions = nn.Parameter(torch.randn(settings.k, width))
        diagonal = settings.filter == "diagonal"
        self.filters = nn.ModuleList(FourierFilter(settings.k, width, settings.heads, diagonal) for _ in range(3))
        self.attention = TargetAttention(width, settings.attention_dim, settings.heads)
        self.short = ShortTerm(width, settings.short, settings.attention_hidden)
        self.tower = Tower(width, 1 + self.short.interests, settings.hidden, settings.dropout)

    def hashed(self, items: Tensor) -> Tensor:
        """Hash codes (...) of items (...)."""
        return self.known("codes", lambda some: self.hash(self.items(some)), items)

    def routes(self, batch: Batch, histories: Tensor, valid: Tensor) -> list[Selected]:
        """The events of the target, the recent and the global query."""
        codes = self.hashed(histories)
        last = latest(batch.lengths, self.recent)
        # a sum hashes like a mean
        windows = [self.summed(last.take(histories) * last.valid), self.summed(histories)]
        hashed = [query[:, None] for query in (self.hashed(batch.items), *map(self.hash, windows))]
        return [best(agreement(codes, query, self.hash.bits), self.k, valid) for query in hashed]

    def interest(self, number: int, histories: Tensor, selected: Selected) -> tuple[Tensor, Tensor]:
        """A route's vector (rows, width), and whether it found anything (rows,)."""
        valid = selected.valid if self.mask else torch.ones_like(selected.valid)
        events = self.items(selected.take(histories) * selected.valid) + _POSITION_SCALE * self.positions
        mixed = self.filters[number](events, valid)
        return mixed.sum(1) / valid.sum(1, keepdim=True).clamp(min=1), valid.any(1)

    def logits(self, batch: Batch) -> Tensor:
        histories = filled(batch.histories)
        with torch.no_grad():
            routes = self.routes(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        interests = [self.interest(number, histories, route) for number, route in enumerate(routes)]
        return self._logits(batch.items, interests, self.short.events(self.items, histories, batch.lengths))

    def prepare(self, history: Tensor, ages: Tensor) -> Prepared:
        lengths = torch.tensor([len(history)], device=history.device)
        history = filled(history[None])
        groups = Groups(history[0]) if self.grouped else None
        items = groups.labels if groups else history[0]
        vectors = self.items(items)
        codes, valid = self.hashed(items)[None], (items > 0)[None]
        counts = groups.counts[:, None] if groups else 1
        last = latest(lengths, self.recent)
        recent = self.summed(last.take(history) * last.valid)
        short = self.short.events(self.items, history, lengths)
        prepared = Prepared(history, groups, codes, valid, [], short)
        for number, query in enumerate([recent, (vectors * counts).sum(0)[None]], start=1):
            prepared.interests.append(self.interest(number, history, self._search(prepared, self.hash(query))))
        return prepared

    def _search(self, prepared: Prepared, queries: Tensor) -> Selected:
        scores = agreement(prepared.codes, queries[:, None], self.hash.bits)
        find = prepared.groups.best if prepared.groups else best
        return find(scores, self.k, prepared.valid)

    def score(self, prepared: Prepared, candidates: Tensor) -> Tensor:
        selected = self._search(prepared, self.hashed(candidates))
        rows = len(candidates)
        shared = [(vector.expand(rows, -1), valid.expand(rows)) for vector, valid in prepared.interests]
        interests = [self.interest(0, prepared.history, selected), *shared]
        return self._logits(candidates, interests, prepared.short)

    def cells(self, prepared: Prepared) -> int:
        return max(self.k * self.items.width, prepared.codes.shape[1])

    def _logits(self, targets: Tensor, interests: list[tuple[Tensor, Tensor]], short: tuple[Tensor, Tensor]) -> Tensor:
        target = self.items(targets)
        projected = self.attention.project(torch.stack([vector for vector, _ in interests], 1))
        interest = self.attention(target, projected, torch.stack([valid for _, valid in interests], 1))
        logits: Tensor = self.tower(target, [interest, *self.short(target, *short)])
        return logits
