"""R2LED-style lifelong model: retrieval and refinement with semantic IDs.

A reconstruction from the abstract (arXiv 2602.06622): no paper text, code or numbers stand behind a choice made here.
docs/systems/r2led.md lists them.

Retrieval. Each route has a query: the target, the last events, all events, or the target at one level of its codes.
Events are scored by two views, collaborative (agreement of SimHash codes of trained vectors) and semantic (longest
common prefix of codes; for queries of several events the share of them below each prefix), and mixed by quota or sum.
Refinement. A gate makes one vector of the collaborative and the semantic side of each event, the target attends to the
events of each route, and to the routes. How many events of the whole history share each prefix with the target is read
beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tessera.ctr.attention import AGES, TargetAttention, age_buckets, masked_softmax
from tessera.ctr.batch import Batch, Catalogue
from tessera.ctr.counts import Counts, Histogram, scaled, shared
from tessera.ctr.models.base import CodeVectors, ItemVectors, RoutedModel, ShortTerm, Tower, filled, length_mask
from tessera.ctr.retrieval import Groups, Selected, best, latest, union
from tessera.ctr.sid_index import UNIT, Prefixes, PrefixIndex
from tessera.ctr.simhash import SimHash, agreement
from tessera.settings.clicks.r2led import R2LEDSettings

_FINE = 1 << 38
"""Sums of both scores are compared to this fineness."""


class GatedItems(nn.Module):
    """One vector (..., width) of an item's collaborative and semantic sides."""

    def __init__(self, settings: R2LEDSettings, catalogue: Catalogue, width: int) -> None:
        super().__init__()
        self.codes = CodeVectors(settings, catalogue, settings.dim**-0.5) if settings.gate != "none" else None
        self.gate = settings.gate
        self.ages = nn.Embedding(AGES, width)
        nn.init.normal_(self.ages.weight, std=0.02)
        self.project = nn.Linear(width, width)
        if self.codes is None:
            return
        if self.gate == "levels":
            self.sides = nn.ModuleList(nn.Linear(size, width) for size in self.codes.widths)
            self.gates = nn.Linear(width * (1 + len(self.codes.widths)), 1 + len(self.codes.widths))
        else:
            self.semantic = nn.Linear(self.codes.width, width)
        if self.gate == "elementwise":
            self.gates = nn.Linear(3 * width, width)
        elif self.gate == "concat":
            self.join = nn.Linear(2 * width, width)

    def forward(self, items: Tensor, vectors: Tensor, ages: Tensor | None = None) -> Tensor:
        """(...) items, their collaborative vectors (..., width), ages where they are events and not the target."""
        side: Tensor = self.project(vectors if ages is None else vectors + self.ages(age_buckets(ages)))
        if self.codes is None:
            return side
        if self.gate == "levels":
            pairs = zip(self.sides, self.codes.each(items), strict=True)
            sides = torch.stack([side, *(linear(vector) for linear, vector in pairs)], -1)
            shares = self.gates(sides.transpose(-1, -2).flatten(-2)).softmax(-1)
            mixed: Tensor = (sides * shares[..., None, :]).sum(-1)
            return mixed
        other: Tensor = self.semantic(self.codes(items))
        if self.gate == "sum":
            return side + other
        if self.gate == "concat":
            joined: Tensor = self.join(torch.cat([side, other], -1))
            return joined
        share = torch.sigmoid(self.gates(torch.cat([side, other, side * other], -1)))
        return share * side + (1 - share) * other


Find = Callable[[Tensor, int, Tensor], Selected]
"""(scores, k, valid) -> events: by scanning (`best`), or by group."""
Shares = Callable[[], tuple[Tensor, Tensor]]
"""Semantic scores (rows, n) as integers, and what they are shares of, (rows, 1) or one number."""


@dataclass
class Prepared:
    """What the candidates of a request share."""

    history: Tensor
    """(1, length) items, at least one place."""
    ages: Tensor
    groups: Groups
    """The events by item."""
    codes: Tensor
    """(1, groups) hash codes."""
    prefixes: Tensor
    """(1, groups, levels)."""
    events: list[PrefixIndex | None]
    """For each route of the target the events by prefix; None where the route needs no such index."""
    shared: dict[int, tuple[Tensor, Tensor]]
    """Routes that know no target: (1, k, 2 dim) keys and values, and which places hold an event."""
    short: tuple[Tensor, Tensor]
    histogram: Histogram | None
    projected: dict[int, Tensor]
    """Keys and values (1, length, 2 dim) of all events, for routes that were asked for most of them."""


def _all(shares: Sequence[Shares]) -> tuple[Tensor, Tensor]:
    """The scores of several queries of one history, a row each."""
    scores, wholes = zip(*(each() for each in shares), strict=True)
    return torch.cat(scores), torch.cat(wholes)


class Model(RoutedModel):
    """The reconstruction, with attention over the last events beside it."""

    def __init__(self, settings: R2LEDSettings, catalogue: Catalogue) -> None:
        nn.Module.__init__(self)
        if catalogue.codes is None:
            raise ValueError("R2LED reads semantic IDs, and `ctr` names none: set ctr.semantic_ids")
        self.settings = settings
        self.items = ItemVectors(settings, catalogue, codes=False)
        # prefixes are counted by the histogram
        self.counts = Counts(catalogue, prefixes=not settings.histogram) if settings.counts else None
        self._start_keeping(catalogue)
        width = self.items.width
        self.gated = GatedItems(settings, catalogue, width)
        self.hash = SimHash(width, settings.bits)
        self.kinds: list[str] = []
        prefixes: list[Prefixes] = []
        self.whole = full = Prefixes(catalogue.codes, settings.level_weights)
        for route in settings.routes:
            for level in range(full.levels) if route == "levels" else [None]:
                self.kinds.append("target" if level is not None else route)
                alone = [float(level == each) for each in range(full.levels)]
                prefixes.append(full if level is None else Prefixes(catalogue.codes, alone))
        self.prefixes = nn.ModuleList(prefixes)
        self.attentions = nn.ModuleList(
            TargetAttention(width, settings.attention_dim, settings.heads) for _ in self.kinds
        )
        self.fusion = settings.fusion if len(self.kinds) > 1 else "mean"  # one route needs no weights
        if self.fusion == "attention":
            self.route_query = nn.Linear(width, settings.attention_dim)
            self.route_key = nn.Linear(width, settings.attention_dim)
            self.route_value = nn.Linear(width, width)
        self.short = ShortTerm(width, settings.short, settings.attention_hidden)
        interests = 1 + len(self.kinds) + self.short.interests
        added = 2 * full.levels if settings.histogram else 0
        self.tower = Tower(width, interests, settings.hidden, settings.dropout, added)

    def fused(self, items: Tensor, ages: Tensor | None = None) -> Tensor:
        """Both sides of items (...), with ages where they are events -> (..., width)."""
        vectors: Tensor = self.gated(items, self.items(items), ages)
        return vectors

    @property
    def _attentions(self) -> list[TargetAttention]:
        return [attention for attention in self.attentions if isinstance(attention, TargetAttention)]

    @property
    def _prefixes(self) -> list[Prefixes]:
        return [prefixes for prefixes in self.prefixes if isinstance(prefixes, Prefixes)]

    # ------------------------------------------------------------ retrieval

    def hashed(self, items: Tensor) -> Tensor:
        """Hash codes (...) of items (...)."""
        return self.known("codes", lambda some: self.hash(self.items(some)), items)

    def find(
        self, code: Tensor, codes: Tensor, semantic: Shares, valid: Tensor, length: int, find: Find,
        index: Callable[[int], Selected] | None = None,
    ) -> Selected:  # fmt: skip
        """The events of a query a row.

        Args:
            code: (rows,) hash codes of the queries.
            codes: (rows or 1, n) hash codes of events, or of groups of them.
            semantic: scores of the same, made where they are needed.
            valid: (rows or 1, n) which of them there are.
            length: of the histories.
            find: how scores become events.
            index: finds so many events by their prefix without scores.
        """
        settings = self.settings

        def by_prefix(k: int) -> Selected:
            if index is not None:
                return index(k)
            scores, _ = semantic()
            return find(scores, k, valid & (scores > 0) if settings.matches_only else valid)

        def by_hash(k: int) -> Selected:
            return find(agreement(codes, code[:, None], self.hash.bits), k, valid)

        if settings.views == "collaborative":
            return by_hash(settings.k)
        if settings.views == "semantic":
            return by_prefix(settings.k)
        if settings.mixing == "quota":
            half = settings.k // 2
            return union(by_hash(settings.k - half), by_prefix(half), length)
        scores, whole = semantic()
        same = agreement(codes, code[:, None], self.hash.bits).double() / self.hash.bits
        mixed = settings.alpha * same + (1 - settings.alpha) * (scores.double() / whole)
        return find((mixed * _FINE).round().long(), settings.k, valid)

    def like_target(self, route: int, prefixes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Semantic scores of events with (rows or 1, n, levels) prefixes for targets (rows,)."""
        table = self._prefixes[route]
        scores = table.score(prefixes, table.of(targets)[:, None])
        return scores, scores.new_tensor(UNIT)

    def like_window(self, prefixes: Tensor, window: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Those for a window of events with (rows, size, levels) prefixes, each of which counts so often."""
        mass = self.whole.mass(prefixes, window, counted)
        return mass, UNIT * counted.sum(1, keepdim=True).clamp(min=1)

    def routes(self, batch: Batch, histories: Tensor, valid: Tensor) -> list[Selected]:
        """The events of each route, by scanning."""
        codes = self.hashed(histories)
        last = latest(batch.lengths, self.settings.recent)
        prefixes = self.whole.of(histories)  # levels have the same prefixes whatever they weigh
        routes = []
        for route, kind in enumerate(self.kinds):
            if kind == "target":
                code, semantic = self.hashed(batch.items), partial(self.like_target, route, prefixes, batch.items)
            elif kind == "recent":  # a sum hashes like a mean
                code = self.hash(self.summed(last.take(histories) * last.valid))
                semantic = partial(self.like_window, prefixes, last.take(prefixes), last.valid.long())
            else:
                code = self.hash(self.summed(histories))
                semantic = partial(self.like_window, prefixes, prefixes, valid.long())
            routes.append(self.find(code, codes, semantic, valid, histories.shape[1], best))
        return routes

    # ------------------------------------------------------------ batches

    def logits(self, batch: Batch) -> Tensor:
        histories, ages = filled(batch.histories), filled(batch.ages)
        with torch.no_grad():
            routes = self.routes(batch, histories, length_mask(batch.lengths, histories.shape[1]))
        events = [
            (attention.project(self.fused(route.take(histories), route.take(ages))), route.valid)
            for attention, route in zip(self._attentions, routes, strict=True)
        ]
        alike = self._alike(histories, batch.items)
        return self._logits(batch.items, events, self._last(histories, batch.lengths), alike, batch.lengths)

    def _alike(self, histories: Tensor, targets: Tensor) -> Tensor | None:
        """(batch, levels) events that share each prefix with the target; None where nobody asks."""
        if not self.settings.histogram:
            return None
        return shared(self.whole.of(histories), self.whole.of(targets))

    def _last(self, histories: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        last = latest(lengths, self.short.size)
        return self.fused(last.take(histories)) * last.valid[..., None], last.valid

    def _logits(
        self,
        targets: Tensor,
        events: list[tuple[Tensor, Tensor]],
        short: tuple[Tensor, Tensor],
        alike: Tensor | None,
        lengths: Tensor,
    ) -> Tensor:
        answering = not (self.training or torch.is_grad_enabled())
        target = self.known("fused", self.fused, targets) if answering else self.fused(targets)
        each = [
            attention(target, projected, valid)
            for attention, (projected, valid) in zip(self._attentions, events, strict=True)
        ]
        routes = torch.stack(each, 1)
        some = torch.stack([valid.any(-1).expand(len(target)) for _, valid in events], 1)
        if self.fusion == "attention":
            query, keys = self.route_query(target), self.route_key(routes)
            scores = (keys @ query[..., None]).squeeze(-1) / math.sqrt(keys.shape[-1])
            fused = (masked_softmax(scores, some)[..., None] * self.route_value(routes)).sum(1)
        else:
            fused = routes.sum(1) / some.sum(1, keepdim=True).clamp(min=1)
        added = [] if alike is None else scaled(alike, lengths, target.dtype)
        logits: Tensor = self.tower(target, [fused, *each, *self.short(target, *short)], added)
        return logits

    # ------------------------------------------------------------ requests

    def prepare(self, history: Tensor, ages: Tensor) -> Prepared:
        lengths = torch.tensor([len(history)], device=history.device)
        history, ages = filled(history[None]), filled(ages[None])
        groups = Groups(history[0])
        prepared = Prepared(
            history=history,
            ages=ages,
            groups=groups,
            codes=self.hashed(groups.labels)[None],
            prefixes=self.whole.of(groups.labels)[None],
            events=[self._index(route, history[0]) for route in range(len(self.kinds))],
            shared={},
            short=self._last(history, lengths),
            histogram=Histogram(self.whole.of(groups.labels), groups.counts) if self.settings.histogram else None,
            projected={},
        )
        windows = [route for route, kind in enumerate(self.kinds) if kind != "target"]
        if windows:  # all at once, a row each
            codes, shares = zip(*(self._window(self.kinds[route], prepared, lengths) for route in windows), strict=True)
            selected = self._search(torch.cat(codes), partial(_all, shares), prepared)
            tokens = self.fused(selected.take(history), selected.take(ages))
            for row, route in enumerate(windows):
                projected = self._attentions[route].project(tokens[row : row + 1])
                prepared.shared[route] = projected, selected.valid[row : row + 1]
        return prepared

    def _index(self, route: int, history: Tensor) -> PrefixIndex | None:
        table = self._prefixes[route]
        settings = self.settings
        scans = settings.views == "collaborative" or (settings.views == "mixed" and settings.mixing == "fuse")
        empty = not history[-1]  # one place of padding, which a scan leaves out
        if self.kinds[route] != "target" or scans or empty or not table.ordered:
            return None
        return PrefixIndex(table, table.of(history))

    def _window(self, kind: str, prepared: Prepared, lengths: Tensor) -> tuple[Tensor, Shares]:
        """Hash code (1,) and semantic scores of the recent or the global query."""
        groups = prepared.groups
        if kind == "recent":
            last = latest(lengths, self.settings.recent)
            items, counted = last.take(prepared.history), last.valid.long()
            window = self.whole.of(items)
        else:
            items, counted = groups.labels[None], (groups.counts * (groups.labels > 0))[None]
            window = prepared.prefixes
        code = self.hash((counted.to(self.hash.projections.dtype)[:, None] @ self.items(items)).squeeze(1))
        return code, partial(self.like_window, prepared.prefixes, window, counted)

    def _search(
        self, code: Tensor, semantic: Shares, prepared: Prepared, index: Callable[[int], Selected] | None = None
    ) -> Selected:
        valid = (prepared.groups.labels > 0)[None]
        length = prepared.history.shape[1]
        return self.find(code, prepared.codes, semantic, valid, length, prepared.groups.best, index)

    def score(self, prepared: Prepared, candidates: Tensor) -> Tensor:
        events = []
        code = self.hashed(candidates)
        for route, attention in enumerate(self._attentions):
            if route in prepared.shared:
                events.append(prepared.shared[route])
                continue
            by_prefix, index = self._prefixes[route].of(candidates), prepared.events[route]
            semantic = partial(self.like_target, route, prepared.prefixes, candidates)
            walk = partial(index.best, by_prefix, matches_only=self.settings.matches_only) if index else None
            selected = self._search(code, semantic, prepared, walk)
            if selected.positions.numel() < prepared.history.shape[1]:
                tokens = self.fused(selected.take(prepared.history), selected.take(prepared.ages))
                projected = attention.project(tokens)
            else:  # each event is wanted more than once: project the history once, and gather
                if route not in prepared.projected:
                    tokens = self.fused(prepared.history, prepared.ages)
                    prepared.projected[route] = attention.project(tokens)
                projected = selected.take(prepared.projected[route])
            events.append((projected, selected.valid))
        alike = prepared.histogram.of(self.whole.of(candidates)) if prepared.histogram else None
        lengths = (prepared.history > 0).sum(1)
        return self._logits(candidates, events, prepared.short, alike, lengths)

    def cells(self, prepared: Prepared) -> int:
        walks = self.settings.views == "semantic" and any(index is not None for index in prepared.events)
        return max(self.settings.k * self.items.width, 0 if walks else len(prepared.groups))
