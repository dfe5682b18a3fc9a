"""Two views of an item, fused: what a multimodal model says of it, and its own text (DMESR, arXiv 2602.13715).

A reconstruction: of the paper the abstract was known here, and no code (docs/systems/dmesr.md has the open questions).
The coarse view is up to three vectors, of what a model says of the picture, of the text, and of both; the fine view is
a vector an attribute of the text. They read each other by cross-attention, which gives two fused vectors an item. All
items pass once a step, and a value that many items share (`brand is Oxbow`) is projected once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tessera.artifacts.sequences import ItemSequences
from tessera.objectives.contrastive import soft_contrastive
from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.backbones.two_views import TwoViews
from tessera.recommenders.inputs import RunInputs, Table
from tessera.recommenders.item_encoders.base import ItemEncoder, View
from tessera.recommenders.item_encoders.fusion import CrossAttention, SequenceFusion, masked_mean
from tessera.recommenders.item_encoders.parts import (
    make_adapter,
    of_all_processes,
    standardized,
    standardized_sequences,
)
from tessera.recommenders.missing import Lost, Present
from tessera.settings.backbones.base import BackboneSettings
from tessera.settings.items.dual_view import DualViewItems


class DualViewEncoder(ItemEncoder):
    """Projects, aligns and fuses the views; what an item lacks is a learned vector, never zeros."""

    def __init__(
        self,
        settings: DualViewItems,
        coarse: Mapping[str, Table],
        fine: ItemSequences | None,
        dim: int,
        lost: Mapping[str, Lost | None] | None = None,
    ) -> None:
        """
        Args:
            settings: what is read and how it is fused.
            coarse: by what the model was shown: image, text, both.
            fine: the attributes.
            dim: width of the item vectors made; two views that stand side by side have half of it each.
            lost: which rows of a view are lost in an experiment.
        Raises:
            ValueError: a table has no row at all.
        """
        super().__init__()
        self.settings = settings
        width = settings.width
        for shown, (vectors, present) in coarse.items():
            if not present.any():
                raise ValueError(f"items.{shown}: the table {settings.coarse[shown]!r} has no row")
            # not saved with the weights: tables are artifacts of their own
            self.register_buffer(f"table_{shown}", standardized(vectors, present), persistent=False)
        lost = lost or {}
        self.present = nn.ModuleDict({shown: Present(rows, lost.get(shown)) for shown, (_, rows) in coarse.items()})
        self.shown = list(coarse)
        self.project = nn.ModuleDict({shown: nn.Linear(x.shape[1], width) for shown, (x, _) in coarse.items()})
        self.absent = nn.ParameterDict({s: nn.Parameter(torch.randn(width) * 0.02) for s in (*coarse, "fine")})
        # several processes wait for the gradient of whatever is trained
        self.absent["fine"].requires_grad_(fine is not None)
        self.fine = Attributes(fine, width, lost.get("fine")) if fine is not None else None
        for view, there in [*self.present.items(), *([("fine", self.fine.present)] if self.fine is not None else [])]:
            assert isinstance(there, Present)
            there.watch(self.absent[view])
        self.fusion = _Fusion(settings) if settings.views == 2 and settings.axis == "item" else None
        part = dim // 2 if settings.views == 2 and settings.combine == "concat" else dim
        self.adapters = nn.ModuleDict(
            {
                view: make_adapter([width, *settings.adapter], part, settings.dropout, norm=True)
                for view in (["coarse"] if coarse else []) + (["fine"] if fine is not None else [])
            }
        )
        self.gate = nn.Linear(2 * dim, dim) if settings.views == 2 and settings.combine == "gated_sum" else None
        self.heads: nn.ModuleDict | None = None
        if settings.alignment is not None and {"image", "text"} <= set(coarse):
            compared = [shown for shown in coarse if shown != "both" or settings.alignment.anchor]
            self.heads = nn.ModuleDict({shown: nn.Linear(width, settings.alignment.dim) for shown in compared})

    @classmethod
    def build(cls, settings: DualViewItems, inputs: RunInputs, items: int, dim: int) -> DualViewEncoder:
        """See `ItemEncoder.build`."""
        coarse = {shown: inputs.read_table(table, items) for shown, table in settings.coarse.items()}
        fine = inputs.read_sequences(settings.fine, items) if settings.fine else None
        named = settings.coarse | ({"fine": settings.fine} if settings.fine else {})
        return cls(settings, coarse, fine, dim, {view: inputs.lost(table, items) for view, table in named.items()})

    @classmethod
    def backbone(cls, settings: DualViewItems, backbone: BackboneSettings, kind: Any) -> Backbone:
        """One that reads both views at once, or one of half the width a view, sharing weights or not."""
        made: Backbone
        if settings.backbone == "joint":
            made = kind(backbone)
        else:
            half = backbone.model_copy(update={"dim": backbone.dim // 2})
            made = TwoViews([kind(half) for _ in range(1 if settings.backbone == "shared" else 2)])
        if settings.axis == "sequence":
            made.fusion = SequenceFusion(made.dim, settings.heads, made.causal)
        return made

    def item_rows(self) -> Collection[str]:
        """Nothing: an item is what its tables say."""
        return []

    def views(self) -> Mapping[str, View]:
        """The tables of what a model says, and the attributes, as their mean an item."""
        views = {}
        for shown in self.shown:
            present = self.present[shown]
            assert isinstance(present, Present)
            views[shown] = View(self.settings.coarse[shown], present, partial(self._rows, shown))
        if self.fine is not None and self.settings.fine is not None:
            views["fine"] = View(self.settings.fine, self.fine.present, self.fine.means)
        return views

    def _rows(self, shown: str, items: Tensor) -> Tensor:
        return self.get_buffer(f"table_{shown}")[items]

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`: items of which some view says something."""
        rows = [view.present() for view in self.views().values()]
        return torch.stack([one if one.ndim == 1 else one.flatten(1).any(1) for one in rows]).any(0)

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors."""
        return self._made(None)

    def some(self, items: Tensor) -> Tensor:
        """See `ItemEncoder.some`: tables are projected whole, and views fused of these items alone."""
        return self._made(items) if self.training else super().some(items)

    def _made(self, items: Tensor | None) -> Tensor:
        """(n, dim) vectors of some items, or of all."""
        coarse = torch.stack([self._coarse(shown, items) for shown in self.shown], 1) if self.shown else None
        views: dict[str, Tensor] = {}
        if self.fusion is not None and coarse is not None and self.fine is not None:
            views["coarse"], views["fine"] = self.fusion(coarse, self.fine, self.absent["fine"], self.once, items)
        else:
            if coarse is not None:
                views["coarse"] = coarse.mean(1)
            if self.fine is not None:
                index, present = self.fine.layout(items)
                distinct = self.once("distinct", partial(self.fine.distinct, self.absent["fine"]))
                views["fine"] = masked_mean(nn.functional.embedding(index, distinct), present)
        made = [self.adapters[view](x) for view, x in views.items()]
        if self.gate is None:
            return torch.cat(made, 1)
        share = self.gate(torch.cat(made, 1)).sigmoid()
        mixed: Tensor = share * made[0] + (1 - share) * made[1]
        return mixed

    def auxiliary_losses(self, vectors: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """InfoNCE in both directions between what is said of the targets' pictures and of their texts (spec. 4.2, C).

        Items that lack one of the two are left out; an item that is a target several times counts once.

        Args:
            vectors: (items + 1, dim) what `forward` gave.
            targets: (targets,) item ids that the step predicts.
        """
        alignment = self.settings.alignment
        if self.heads is None or alignment is None:
            return {}
        targets = of_all_processes(targets).unique()  # type: ignore[no-untyped-call]
        for shown in self.heads:
            targets = targets[self.present[shown]()[targets]]
        if not len(targets):
            return {"alignment": vectors.new_zeros(())}
        compared = {shown: head(self._projected(shown, targets)) for shown, head in self.heads.items()}
        pairs = [("image", "text"), *([("image", "both"), ("text", "both")] if "both" in compared else [])]
        losses = [
            soft_contrastive(compared[one], compared[other], alignment.temperature, normalize=True, targets="identity")
            for one, other in pairs
        ]
        return {"alignment": alignment.weight * torch.stack(losses).mean()}

    def _coarse(self, shown: str, items: Tensor | None = None) -> Tensor:
        """(n, width) projected vectors of one table, the learned one where an item has none."""
        present = self.present[shown]
        assert isinstance(present, Present)
        projected = self.once(shown, lambda: self._projected(shown))
        if items is None:
            return present.fill(projected, self.absent[shown])
        return torch.where(present()[items][:, None], projected[items], self.absent[shown])

    def _projected(self, shown: str, items: Tensor | slice = slice(None)) -> Tensor:
        projected: Tensor = self.project[shown](self.get_buffer(f"table_{shown}")[items])
        return projected


class Attributes(nn.Module):
    """The fine view: attribute vectors, of which equal ones are kept and projected once, and mapped into memory."""

    values: Tensor
    """(values, input width) the distinct ones."""
    value_index: Tensor
    """(items + 1, n) which value stands where; `values` of them stands for none."""

    def __init__(self, rows: ItemSequences, width: int, lost: Lost | None = None) -> None:
        """
        Args:
            rows: the attributes.
            width: what they are projected to.
            lost: which items lose theirs in an experiment.
        Raises:
            ValueError: there is none.
        """
        super().__init__()
        if not len(rows.values):
            raise ValueError("items.fine: the table has no row")
        rows, mean = standardized_sequences(rows)
        self.register_buffer("values", torch.from_numpy(rows.values), persistent=False)
        self.register_buffer("value_index", torch.from_numpy(rows.value_index), persistent=False)
        self.project = nn.Linear(rows.values.shape[1], width)
        self.present = Present(torch.from_numpy(rows.present), lost)
        self.register_buffer("mean", mean, persistent=False)
        self.mean: Tensor

    def distinct(self, absent: Tensor) -> Tensor:
        """(values + 1, width) projected values, and last what stands where an item has no text."""
        stand_in = self.project(self.mean) if self.present.unlearned(absent) else absent
        return torch.cat([self.project(self.values), stand_in[None]])

    def layout(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Which value stands where, and where any does, (items + 1, n): without a text it is the absent one, once.

        Of some items (n,) where they are given.
        """
        none = len(self.values)
        index, missed = self.value_index, self.present.missed()
        if self.present.away:  # one column is enough for what is absent everywhere
            index = index[:, :1]
        if items is not None:
            index, missed = index[items], None if missed is None else missed[items]
        if missed is not None:
            index = index.masked_fill(missed[:, None], none)
        present = index < none
        present = torch.cat([present[:, :1] | ~present.any(1, keepdim=True), present[:, 1:]], 1)
        return index, present

    def means(self, items: Tensor) -> Tensor:
        """(n, input width) the mean of the attributes of items (n,) that have any."""
        there = self.present.present[items]
        index = self.value_index[items].clamp(max=len(self.values) - 1)
        return masked_mean(nn.functional.embedding(index, self.values), there)

    def tokens(self, absent: Tensor) -> tuple[Tensor, Tensor]:
        """(items + 1, n, width) projected attributes and (items + 1, n) which there are."""
        index, present = self.layout()
        return nn.functional.embedding(index, self.distinct(absent)), present


Once = Callable[[str, Callable[[], Tensor]], Tensor]
"""See `ItemEncoder.once`."""


class _Fusion(nn.Module):
    """The two views of an item read each other, or one of them does; or each has the other's mean beside its own."""

    def __init__(self, settings: DualViewItems) -> None:
        super().__init__()
        reading = ("coarse", "fine") if settings.direction == "both" else (settings.direction,)
        if settings.fusion == "attention":
            self.reads = nn.ModuleDict({view: CrossAttention(settings.width, settings.heads) for view in reading})
        else:
            self.reads = nn.ModuleDict({view: nn.Linear(2 * settings.width, settings.width) for view in reading})

    def forward(
        self, coarse: Tensor, attributes: Attributes, absent: Tensor, once: Once, items: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Two fused vectors an item, (n, width) each.

        Args:
            coarse: (n, tables, width).
            attributes: the fine view.
            absent: (width,) what stands for a text that there is not.
            once: see `ItemEncoder.once`.
            items: (n,) which these are; None for all, in their order.
        """
        index, present = attributes.layout(items)
        distinct = once("distinct", lambda: attributes.distinct(absent))

        def spread(x: Tensor) -> Tensor:  # what is computed once a value, at every item that has it
            return nn.functional.embedding(index, x)

        mean_coarse, mean_fine = coarse.mean(1), masked_mean(spread(distinct), present)
        views = {"coarse": mean_coarse, "fine": mean_fine}
        for view, read in self.reads.items():
            if not isinstance(read, CrossAttention):
                both = [mean_coarse, mean_fine] if view == "coarse" else [mean_fine, mean_coarse]
                views[view] = read(torch.cat(both, 1))
            elif view == "coarse":
                keys = spread(once("fine keys", partial(read.project_keys, distinct)))
                seen = read.attend(read.project_query(coarse), keys, present[:, None]).mean(1)
                views[view] = mean_coarse + read.project_out(seen)
            else:
                queries = spread(once("fine queries", partial(read.project_query, distinct)))
                keys = read.project_keys(coarse)
                views[view] = mean_fine + read.project_out(masked_mean(read.attend(queries, keys), present))
        return views["coarse"], views["fine"]
