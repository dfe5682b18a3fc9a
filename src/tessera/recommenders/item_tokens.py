"""Items as tokens of a language model: raw tables projected, code vectors summed, both fused (MME-SID, section 3).

The token of an item depends on the item alone, so it is made once for each different item of a step, not once a
position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tessera.recommenders.item_encoders.parts import standardized
from tessera.recommenders.missing import Lost, Present

_CHUNK = 4096
"""Items of the whole catalogue that are fused at once: the hidden layer of large models is wide."""


class RawBranch(nn.Module):
    """A frozen item table behind a trained projection: u = W e + b; items without a row share a learned vector."""

    table: Tensor

    def __init__(
        self, vectors: Tensor, present: Tensor, width: int, standardize: bool, lost: Lost | None = None
    ) -> None:
        """
        Args:
            vectors: (items + 1, d) the table, row 0 the padding.
            present: (items + 1,) bool, which rows it has.
            width: of the language model.
            standardize: centre the table and scale it to unit mean square.
            lost: which rows are lost in an experiment.
        """
        super().__init__()
        table = standardized(vectors, present) if standardize else vectors * present[:, None]
        # not saved with the weights: the table is an artifact of its own
        self.register_buffer("table", table, persistent=False)
        self.present = Present(present, lost)
        self.projection = nn.Linear(vectors.shape[1], width)
        self.absent = nn.Parameter(torch.randn(width) * 0.02)
        self.present.watch(self.absent)

    def forward(self, items: Tensor | slice) -> Tensor:
        """(n, width) of the items."""
        return torch.where(self.present()[items, None], self.projection(self.table[items]), self.stand_in())

    def stand_in(self) -> Tensor:
        """(width,) what stands where an item has no row: learned, or the mean of all where training met none."""
        return self.present.stand_in(self.absent, lambda rows: self.projection(self.table[rows].mean(0)))


class CodeBranch(nn.Module):
    """The sum of the vectors of an item's codes; items without codes share a learned vector.

    Code vectors as wide as the language model enter its token space as they are. Narrower ones pass a trained linear
    map after the sum, and then span no more directions than they have dimensions: what the paper avoids by an
    equal width.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, codebooks: Sequence[Tensor], width: int) -> None:
        """
        Args:
            codes: (items + 1, levels) int64, negative where an item lacks the part.
            codebooks: (codes, code width), one a level.
            width: of the language model.
        """
        super().__init__()
        self.register_buffer("codes", codes, persistent=False)
        self.codebooks = nn.ParameterList(nn.Parameter(book.clone()) for book in codebooks)
        code_width = codebooks[0].shape[1]
        self.map = nn.Identity() if code_width == width else nn.Linear(code_width, width, bias=False)
        self.absent = nn.Parameter(torch.randn(width) * 0.02)
        self.present = Present(codes[:, 0] >= 0)
        self.present.watch(self.absent)

    def forward(self, items: Tensor | slice) -> Tensor:
        """(n, width) of the items."""
        return torch.where(self.present()[items, None], self._summed(self.codes[items]), self.stand_in())

    def _summed(self, codes: Tensor) -> Tensor:
        looked_up = [
            nn.functional.embedding(level.clamp(min=0), book)
            for level, book in zip(codes.unbind(1), self.codebooks, strict=True)
        ]
        mapped: Tensor = self.map(torch.stack(looked_up).sum(0))
        return mapped

    def stand_in(self) -> Tensor:
        """(width,) what stands where an item has no codes: learned, or the mean of all where nothing moved it."""
        return self.present.stand_in(self.absent, lambda rows: self._summed(self.codes[rows]).mean(0))


def unit_codebooks(codes: Tensor, codebooks: Sequence[Tensor]) -> list[Tensor]:
    """Codebooks times one number: the sums of items' codes get unit mean square, and distances keep their order."""
    known = codes[codes[:, 0] >= 0]
    sums = torch.stack([book[level] for level, book in zip(known.unbind(1), codebooks, strict=True)]).sum(0)
    size = sums.square().mean().sqrt().clamp(min=1e-12)
    return [book / size for book in codebooks]


class ItemTokens(nn.Module):
    """g = GELU(MLP([u_1; a_1; u_2; a_2; ...])), ReLU between the layers of the MLP."""

    def __init__(
        self, raw: Sequence[RawBranch], codes: Sequence[CodeBranch], width: int, fusion: Sequence[int] | None
    ) -> None:
        """
        Args:
            raw: branches of raw tables, or none.
            codes: branches of codes, or none; in the order of `raw` where both are there.
            width: of the language model.
            fusion: hidden widths; None is one layer of half of the branches together.
        Raises:
            ValueError: neither raw tables nor codes.
        """
        super().__init__()
        self.raw = nn.ModuleList(raw)
        self.codes = nn.ModuleList(codes)
        branches = len(raw) + len(codes)
        if not branches:
            raise ValueError("raw and codes: items need at least one of them")
        widths = [branches * width, *([max(1, branches * width // 2)] if fusion is None else fusion)]
        layers = [layer for before, after in pairwise(widths) for layer in (nn.Linear(before, after), nn.ReLU())]
        self.fusion = nn.Sequential(*layers, nn.Linear(widths[-1], width), nn.GELU())

    def forward(self, items: Tensor | slice) -> Tensor:
        """(n, width) tokens of item ids (n,), or of a slice of the catalogue."""
        if self.raw and self.codes:
            pairs = zip(self.raw, self.codes, strict=True)
            branches = [branch(items) for pair in pairs for branch in pair]
        else:
            branches = [branch(items) for branch in (*self.raw, *self.codes)]
        tokens: Tensor = self.fusion(torch.cat(branches, dim=1))
        return tokens

    @torch.no_grad()
    def catalogue(self, count: int) -> Tensor:
        """(items + 1, width) the tokens of all items."""
        return torch.cat([self(slice(start, min(start + _CHUNK, count + 1))) for start in range(0, count + 1, _CHUNK)])
