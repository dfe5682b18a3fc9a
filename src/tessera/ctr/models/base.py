"""What all click-through models share: item vectors, the network on top, and two ways of being called.

`forward(batch)` is for training and judging: a history a row. `request(history, ages, candidates)` is for serving: one
history, many candidates. A model says `logits` for the first, and for the second `prepare`, which knows no candidate,
and `score`; both give the same logits (tested).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.artifacts.codes import ABSENT
from tessera.ctr.attention import DINAttention
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.counts import Counts
from tessera.ctr.retrieval import Selected, latest
from tessera.settings.clicks import base as click_settings

CELLS = 1 << 22
"""Most numbers of a table of candidates by events when serving: more candidates are scored in turn."""


class CodeVectors(nn.Module):
    """The vectors of an item's codes, a table for each level that has a meaning, which start as the codebooks.

    Codebooks are scaled to a mean square of `scale ** 2`, one factor for all levels of a part: what they tell of
    distances stays, and they enter as small as other vectors.
    """

    def __init__(self, settings: click_settings.ClickModel, catalogue: Catalogue, scale: float) -> None:
        super().__init__()
        ids = catalogue.codes
        if ids is None:
            raise ValueError("the model reads semantic IDs, and `ctr` names none: set ctr.semantic_ids")
        self.levels = nn.ModuleList()
        columns, start = [], 0
        for number, part in enumerate(ids.parts):
            books = [catalogue.codebooks.get((number, level)) for level in range(part.meaningful)]
            known = [book.float() for book in books if book is not None and settings.start == "codebooks"]
            size = torch.cat([book.flatten() for book in known]).square().mean().sqrt() if known else torch.tensor(1.0)
            for level, book in enumerate(books):
                width = book.shape[1] if book is not None and known else settings.code_dim
                table = nn.Embedding(part.sizes[level] + 1, width, padding_idx=0)  # 0: no codes
                nn.init.normal_(table.weight, std=scale)
                with torch.no_grad():
                    if book is not None and known:
                        table.weight[1:] = book.float() * (scale / size.clamp(min=1e-12))
                    table.weight[0] = 0
                self.levels.append(table)
                columns.append(start + level)
            start += len(part.sizes)
        codes = torch.from_numpy(ids.codes[:, columns])
        self.register_buffer("codes", torch.where(codes == ABSENT, -1, codes) + 1, persistent=False)
        widths = [table.embedding_dim for table in self.levels if isinstance(table, nn.Embedding)]
        self.widths = widths
        self.sum = settings.combine == "sum"
        if self.sum and len(set(widths)) > 1:
            raise ValueError(f"code vectors of the widths {widths} cannot be added: set combine to concat")
        self.width = widths[0] if self.sum else sum(widths)

    def each(self, items: Tensor) -> list[Tensor]:
        """(...) items -> for every level (..., width); zeros where an item has no codes."""
        codes = self.get_buffer("codes")[items]
        return [table(codes[..., level]) for level, table in enumerate(self.levels)]

    def forward(self, items: Tensor) -> Tensor:
        """(...) -> (..., width)."""
        vectors = self.each(items)
        return torch.stack(vectors).sum(0) if self.sum else torch.cat(vectors, -1)


class ItemVectors(nn.Module):
    """Vectors of items: id, category and, where asked for, codes side by side; zeros for padding.

    An item that training never met has no id vector: what stands there would be random.
    """

    def __init__(self, settings: click_settings.ClickModel, catalogue: Catalogue, codes: bool) -> None:
        super().__init__()
        scale = settings.dim**-0.5
        self.ids = nn.Embedding(catalogue.items + 1, settings.dim, padding_idx=0)
        self.categories = nn.Embedding(catalogue.n_categories + 1, settings.category_dim, padding_idx=0)
        for table in (self.ids, self.categories):
            nn.init.normal_(table.weight, std=scale)
            with torch.no_grad():
                table.weight[0] = 0
        self.codes = CodeVectors(settings, catalogue, scale) if codes else None
        known = torch.arange(catalogue.items + 1) * catalogue.known
        self.register_buffer("_known", known, persistent=False)
        self.register_buffer("_category", catalogue.categories, persistent=False)
        self.width = settings.dim + settings.category_dim + (self.codes.width if self.codes else 0)

    def forward(self, items: Tensor) -> Tensor:
        """(...) items -> (..., width)."""
        parts = [self.ids(self.get_buffer("_known")[items]), self.categories(self.get_buffer("_category")[items])]
        if self.codes is not None:
            parts.append(self.codes(items))
        return torch.cat(parts, -1)


class Tower(nn.Module):
    """Logit of the target's vector, the interests, their products, and numbers that a model adds."""

    def __init__(self, width: int, interests: int, hidden: Sequence[int], dropout: float, added: int = 0) -> None:
        super().__init__()
        sizes = [width * (1 + 2 * interests) + added, *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, target: Tensor, interests: Sequence[Tensor], added: Sequence[Tensor] = ()) -> Tensor:
        """(rows,) of (rows, width) each, and of (rows, n) numbers."""
        products = (target * each for each in interests)
        logits: Tensor = self.layers(torch.cat([target, *interests, *products, *added], -1))
        return logits.squeeze(-1)


class ClickModel(nn.Module, ABC):
    """A click-through model. `items` makes the vectors that all of its parts read."""

    def __init__(self, settings: click_settings.ClickModel, catalogue: Catalogue) -> None:
        super().__init__()
        self.items = ItemVectors(settings, catalogue, settings.read_codes)
        self.counts = Counts(catalogue, prefixes=settings.read_codes) if settings.counts else None
        self._start_keeping(catalogue)

    def _start_keeping(self, catalogue: Catalogue) -> None:
        self._every = torch.arange(catalogue.items + 1)
        self._kept: dict[str, tuple[tuple[object, ...], Tensor]] = {}
        self._weights: list[Tensor] = []

    def known(self, name: str, make: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """`make(items)` without gradient, from a table of the whole catalogue where that is less work.

        What is made of an item's vector alone (its hash code, a projection) is the same wherever the item stands. When
        the model only answers, the table is kept until a weight changes.
        """
        learning = self.training or torch.is_grad_enabled()
        with torch.no_grad():
            if learning:
                if items.numel() < len(self._every):
                    return make(items)
                return make(self._every.to(items.device))[items]
            if not self._weights:  # looking for them through the modules takes longer than asking each
                self._weights = list(self.parameters())
            state = (items.device, *(weight._version for weight in self._weights))
            if name not in self._kept or self._kept[name][0] != state:
                self._kept[name] = state, make(self._every.to(items.device))
            return self._kept[name][1][items]

    def summed(self, items: Tensor) -> Tensor:
        """The sums (rows, width) of the vectors of (rows, n) items, without gradient; padding adds nothing."""
        with torch.no_grad():
            if items.numel() < len(self._every):
                total: Tensor = self.items(items).sum(1)
                return total
            return F.embedding_bag(items, self.known("vectors", self.items, self._every.to(items.device)), mode="sum")

    def forward(self, batch: Batch) -> Tensor:
        """(batch,) logits, with what counts tell of them where they are read."""
        logits = self.logits(batch)
        return logits if self.counts is None else logits + self.counts(batch)

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """(batch,) logits of the model without counts."""

    @abstractmethod
    def prepare(self, history: Tensor, ages: Tensor) -> Any:
        """All that a request's candidates share, of a history (length,) and its ages (length,)."""

    @abstractmethod
    def score(self, prepared: Any, candidates: Tensor) -> Tensor:
        """(candidates,) logits."""

    @abstractmethod
    def cells(self, prepared: Any) -> int:
        """Numbers that one candidate needs at a time."""

    @torch.no_grad()
    def request(self, history: Tensor, ages: Tensor, candidates: Tensor) -> Tensor:
        """Logits (candidates,) of `forward` for one history (length,) with its ages (length,); length may be 0."""
        logits = self.score_all(self.prepare(history, ages), candidates)
        return logits if self.counts is None else logits + self.counts.request(history, candidates)

    def score_all(self, prepared: Any, candidates: Tensor) -> Tensor:
        """`score`, in turn where candidates by events would take too much memory."""
        size = max(1, CELLS // max(1, self.cells(prepared)))
        return torch.cat([self.score(prepared, part) for part in torch.split(candidates, size)])


class ShortTerm(nn.Module):
    """DIN attention over the last events, for models that read them beside what they retrieve."""

    def __init__(self, width: int, size: int, hidden: list[int]) -> None:
        super().__init__()
        self.size = size
        self.attention = DINAttention(width, hidden) if size else None

    @property
    def interests(self) -> int:
        """How many vectors it gives: 1, or 0 where it is off."""
        return int(self.size > 0)

    def events(self, items: ItemVectors, histories: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (rows, size, width) of the last events of (rows, length) histories, and which there are."""
        last = latest(lengths, self.size)
        return items(last.take(histories)) * last.valid[..., None], last.valid

    def forward(self, target: Tensor, events: Tensor, valid: Tensor) -> list[Tensor]:
        """[] or [(rows, width)]."""
        return [] if self.attention is None else [self.attention(target, events, valid)]


def filled(histories: Tensor) -> Tensor:
    """At least one place a row, padding where there was none."""
    return histories if histories.shape[-1] else histories.new_zeros(*histories.shape[:-1], 1)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(rows, size) bool: which places of padded histories hold an event."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class RoutedModel(ClickModel):
    """A model whose histories are searched along several routes at once."""

    @abstractmethod
    def routes(self, batch: Batch, histories: Tensor, valid: Tensor) -> list[Selected]:
        """The events of each route, of histories (batch, length) in which `valid` (batch, length) are events."""

    @torch.no_grad()
    def selected(self, batch: Batch) -> Tensor:
        """(batch, length) bool: the events that retrieval hands on."""
        histories = filled(batch.histories)
        routes = self.routes(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        masks = torch.stack([route.mask(histories.shape[1]) for route in routes])
        return masks.any(0)[:, : batch.histories.shape[1]]
