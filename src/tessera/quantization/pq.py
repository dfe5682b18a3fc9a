"""Product quantisation (Jégou et al., TPAMI 2011): the vector in pieces, k-means in each; codes have no order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tessera.quantization.base import Fitted, PartQuantizer, nearest
from tessera.quantization.kmeans import kmeans
from tessera.quantization.vectors import PartVectors, standard
from tessera.settings.quantizers.pq import ProductQuantization
from tessera.training.machine import pick_device


class Part(PartQuantizer):
    """A codebook for every piece; where columns do not divide, the first pieces have one more."""

    ordered = False

    def _pieces(self, latent: Tensor) -> tuple[Tensor, ...]:
        return torch.split(latent, [book.shape[1] for book in self.codebooks], dim=1)

    def choose(self, latent: Tensor) -> Tensor:
        """(n, dim) -> (n, pieces)."""
        pairs = zip(self._pieces(latent), self.codebooks, strict=True)
        return torch.stack([nearest(piece, book) for piece, book in pairs], 1)

    def look_up(self, codes: Tensor) -> Tensor:
        """(n, pieces or more) -> (n, dim) code vectors side by side."""
        return torch.cat([book[codes[:, level]] for level, book in enumerate(self.codebooks)], 1)

    def last(self, latent: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The last piece, whatever the codes of the others are."""
        return self._pieces(latent)[-1], self.codebooks[-1]


def fit(settings: ProductQuantization, data: Sequence[PartVectors], state: Path) -> Fitted:
    """k-means of every piece of one part; nothing is kept in `state`.

    Raises:
        ValueError: more pieces than columns.
    """
    (part,) = data
    if part.vectors.shape[1] < settings.levels:
        raise ValueError(
            f"{part.name}: {part.vectors.shape[1]} columns cannot be cut into {settings.levels} pieces; lower levels"
        )
    vectors = torch.from_numpy(part.vectors).to(pick_device("auto"))
    scaling = standard(vectors, part.widths)
    codebooks, history = [], []
    for level, piece in enumerate(scaling.apply(vectors).tensor_split(settings.levels, dim=1)):
        clusters = kmeans(piece.contiguous(), settings.sizes[level], settings.iterations, (settings.seed, level))
        codebooks.append(clusters.centres.cpu())
        left = clusters.error / max(float(piece.square().sum(1).mean()), 1e-30)
        history.append({"level": level + 1, "iterations": clusters.iterations, "error": clusters.error, "left": left})
    return Fitted([Part(scaling.cpu(), codebooks)], history)
