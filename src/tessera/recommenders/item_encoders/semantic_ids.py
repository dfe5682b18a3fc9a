"""Items as the vectors of their codes, with or without a raw table: the inputs of MME-SID (CIKM 2025) for any backbone.

Every level has a table of code vectors, which is trained and starts as the quantiser's codebook: what the quantiser
learnt of distances is not forgotten on the way (the paper's ablation starts them at random).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from tessera.artifacts.codes import ABSENT, SemanticIds
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.base import ItemEncoder, View
from tessera.recommenders.item_encoders.parts import make_adapter, standardized
from tessera.recommenders.missing import Lost, Present
from tessera.settings.items.semantic_ids import SemanticIdItems


class SemanticIdEncoder(ItemEncoder):
    """Code vectors by level, summed or side by side, then an adapter; a part that an item lacks is a learned vector."""

    def __init__(
        self,
        settings: SemanticIdItems,
        ids: SemanticIds,
        codebooks: Mapping[tuple[int, int], Tensor],
        dim: int,
        table: tuple[Tensor, Tensor] | None = None,
        lost: Lost | None = None,
    ) -> None:
        """
        Args:
            settings: how the codes enter.
            ids: the codes of the catalogue.
            codebooks: (part, level) -> (codes, width); levels without one start at random.
            dim: width of the item vectors made.
            table: vectors (items + 1, width) and present (items + 1,) of the table read beside the codes.
            lost: which of its rows are lost in an experiment.
        Raises:
            ValueError: vectors of several widths are to be added.
        """
        super().__init__()
        self.sum = settings.combine == "sum"
        self.levels = nn.ModuleList()
        entering = []
        for number, part in enumerate(ids.parts):
            books = [codebooks.get((number, level)) for level in range(len(part.sizes))]
            known = [book.shape[1] for book in books if book is not None]
            # the level that tells items apart has no codebook, and given codes have none at all
            widths = [(known or [settings.code_dim])[0] if book is None else book.shape[1] for book in books]
            if self.sum and len(set(widths)) > 1:
                raise ValueError(
                    f"codes of {part.name!r} have vectors of the widths {widths}, which cannot be added: "
                    "say `combine: concat`"
                )
            self.levels.append(
                nn.ModuleList(
                    _code_vectors(size, width, book if settings.start == "codebooks" else None)
                    for size, width, book in zip(part.sizes, widths, books, strict=True)
                )
            )
            entering.append(widths[0] if self.sum else sum(widths))
            self.register_buffer(f"codes_{number}", torch.from_numpy(ids.of(number)), persistent=False)
        self.absent = nn.ParameterList(nn.Parameter(torch.randn(width) * 0.02) for width in entering)
        self.coded = nn.ModuleList(Present(torch.from_numpy(ids.of(n)[:, 0] != ABSENT)) for n in range(len(ids.parts)))
        for coded, absent in zip(self.coded, self.absent, strict=True):
            assert isinstance(coded, Present)
            coded.watch(absent)
        self.table = _Beside(*table, lost) if table is not None else None
        self.name = settings.table
        inner = [sum(entering) + (self.table.width if self.table else 0), *settings.adapter]
        self.adapter = make_adapter(inner, dim, settings.dropout, norm=True)
        self.residual = nn.Parameter(torch.randn(len(ids.codes), dim) * 0.02) if settings.id_residual else None

    @classmethod
    def build(cls, settings: SemanticIdItems, inputs: RunInputs, items: int, dim: int) -> SemanticIdEncoder:
        """See `ItemEncoder.build`."""
        beside = inputs.read_table(settings.table, items) if settings.table else None
        lost = inputs.lost(settings.table, items) if settings.table else None
        return cls(settings, *inputs.read_codes(settings.semantic_ids, items), dim, beside, lost)

    def item_rows(self) -> Collection[str]:
        """The offset an item, where it has one; code vectors belong to codes."""
        return [] if self.residual is None else ["residual"]

    def views(self) -> Mapping[str, View]:
        """The table beside the codes; what the codes were made from is not lost with it."""
        beside = self.table
        if beside is None or self.name is None:
            return {}
        return {"table": View(self.name, beside.present, lambda items: beside.vectors[items])}

    def known(self, met: Tensor) -> Tensor:
        """See `ItemEncoder.known`: items with a code or a row; those that were met, too, where each has an offset."""
        parts = [coded() for coded in self.coded]
        parts += [self.table.present()] if self.table is not None else []
        parts += [met] if self.residual is not None else []
        return torch.stack(parts).any(0)

    def forward(self) -> Tensor:
        """(items + 1, dim) item vectors."""
        entering = [self._part(number) for number in range(len(self.levels))]
        if self.table is not None:
            entering.append(self.table())
        made: Tensor = self.adapter(torch.cat(entering, 1))
        return made if self.residual is None else made + self.residual

    def _part(self, number: int) -> Tensor:
        """(items + 1, width) of one part."""
        codes: Tensor = self.get_buffer(f"codes_{number}")
        books = self.levels[number]
        assert isinstance(books, nn.ModuleList)
        vectors = [book(codes[:, level].clamp(min=0)) for level, book in enumerate(books)]
        joined = torch.stack(vectors).sum(0) if self.sum else torch.cat(vectors, 1)
        coded = self.coded[number]
        assert isinstance(coded, Present)
        return coded.fill(joined, self.absent[number])


def _code_vectors(size: int, width: int, start: Tensor | None) -> nn.Embedding:
    made = nn.Embedding(size, width)
    with torch.no_grad():
        if start is None:
            made.weight.normal_(std=width**-0.5)
        else:
            made.weight.copy_(start)
    return made


class _Beside(nn.Module):
    """A frozen table at unit mean square, with a learned vector for items that it lacks."""

    vectors: Tensor

    def __init__(self, vectors: Tensor, present: Tensor, lost: Lost | None) -> None:
        super().__init__()
        self.register_buffer("vectors", standardized(vectors, present), persistent=False)
        self.present = Present(present, lost)
        self.width = vectors.shape[1]
        self.absent = nn.Parameter(torch.randn(self.width) * 0.02)
        self.present.watch(self.absent)

    def forward(self) -> Tensor:
        """(items + 1, width)."""
        return self.present.fill(self.vectors, self.absent)
