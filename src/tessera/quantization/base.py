"""Fitted quantisers: vectors to codes and back, whatever made the codebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from tessera.artifacts.models import read_model
from tessera.artifacts.tables import ArtifactError
from tessera.quantization.kmeans import rows_held
from tessera.quantization.vectors import Standard
from tessera.settings.kinds import implementation
from tessera.settings.quantizers.base import SemanticIds

Codes = NDArray[np.int64]
Vectors = NDArray[np.float32]

CHUNK = 16384
"""Rows at a time."""


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(n,) the code nearest to each vector: argmax of 2 v.c - |c|^2, as |v|^2 is the same for all codes.

    Args:
        vectors: (n, dim).
        codebook: (codes, dim).
    """
    sizes = codebook.square().sum(1)
    parts = torch.split(vectors, rows_held(len(codebook)))
    return torch.cat([torch.addmm(sizes, rows, codebook.T, beta=-1, alpha=2).argmax(1) for rows in parts])


def squared_distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(n, codes) squared distances by products (Gram form), never below zero."""
    sizes = vectors.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return torch.addmm(sizes, vectors, codebook.T, alpha=-2).clamp(min=0)


class PartQuantizer:
    """One part of a quantiser: residual codes of standardised vectors. Other quantisers change what differs."""

    ordered = True
    """Whether a level refines the one before it."""
    together = False
    """Whether the codes of a row depend on the rows that are asked for beside it."""

    def __init__(self, scaling: Standard, codebooks: Sequence[Tensor]) -> None:
        """
        Args:
            scaling: from the table's own space to that in which codes are chosen, or that of the encoder's input.
            codebooks: a level each, (codes, width).
        """
        self.scaling = scaling
        self.codebooks = list(codebooks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes to choose from, a level each."""
        return tuple(len(book) for book in self.codebooks)

    def encode(self, vectors: Tensor) -> Tensor:
        """(n, dim) of the table -> (n, width) latent vectors."""
        return self.scaling.apply(vectors)

    def decode(self, latent: Tensor) -> Tensor:
        """(n, width) latent vectors -> (n, dim) of the table."""
        return self.scaling.undo(latent)

    def choose(self, latent: Tensor) -> Tensor:
        """(n, width) -> (n, levels) the nearest code of what the levels before left over."""
        chosen = []
        for book in self.codebooks:
            chosen.append(nearest(latent, book))
            latent = latent - book[chosen[-1]]
        return torch.stack(chosen, 1)

    def look_up(self, codes: Tensor) -> Tensor:
        """(n, levels or more) -> (n, width) the sum of the code vectors; a level that has none is ignored."""
        return torch.stack([book[codes[:, level]] for level, book in enumerate(self.codebooks)]).sum(0)

    def last(self, latent: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What the last level sees, given the codes before it: (n, width) vectors and (codes, width) code vectors."""
        for level, book in enumerate(self.codebooks[:-1]):
            latent = latent - book[codes[:, level]]
        return latent, self.codebooks[-1]

    def tensors(self) -> dict[str, Tensor]:
        """Everything under its name."""
        books = {f"codebooks.{level}": book for level, book in enumerate(self.codebooks)}
        return {"mean": self.scaling.mean, "scale": self.scaling.scale, **books}

    @classmethod
    def from_tensors(cls, settings: Any, tensors: Mapping[str, Tensor]) -> PartQuantizer:
        """The inverse of `tensors`."""
        return cls(Standard(tensors["mean"], tensors["scale"]), stored_codebooks(tensors))


def stored_codebooks(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The codebooks of a part by level."""
    count = sum(name.startswith("codebooks.") for name in tensors)
    return [tensors[f"codebooks.{level}"] for level in range(count)]


@dataclass
class Fitted:
    """What fitting gives."""

    parts: list[PartQuantizer]
    history: list[dict[str, Any]]
    """Rows of the curve: of a step, or of a level."""
    clear: Callable[[], None] = field(default=lambda: None)
    """Removes the state, once the result is written."""


def _by_rows(function: Callable[..., Tensor], *arrays: np.ndarray) -> np.ndarray:
    """A function of rows, in chunks."""
    with torch.no_grad():
        parts = [
            function(*(torch.as_tensor(array[start : start + CHUNK]) for array in arrays))
            for start in range(0, max(1, len(arrays[0])), CHUNK)
        ]
    return torch.cat(parts).numpy()


class Quantizer:
    """A fitted quantiser of all parts; arrays in, arrays out, a list entry for each part.

    Rows of the parts need not be the same items: a part is called with the items that have it.
    """

    def __init__(self, settings: SemanticIds, parts: Sequence[PartQuantizer]) -> None:
        self.settings = settings
        self.parts = list(parts)

    def assign(self, vectors: Sequence[Vectors]) -> list[Codes]:
        """(n, dim) vectors of a part's table -> (n, levels) codes.

        Balanced codes depend on all rows of the call: they fill clusters up to their bound.
        """
        codes: list[Codes] = []
        for part, rows in zip(self.parts, vectors, strict=True):
            if part.together:
                codes.append(part.choose(torch.from_numpy(_by_rows(part.encode, rows))).numpy())
            else:  # latent vectors and their products with all codes are of a chunk at a time
                codes.append(_by_rows(lambda chunk, part=part: part.choose(part.encode(chunk)), rows))
        return codes

    def latent(self, codes: Sequence[Codes]) -> list[Vectors]:
        """(n, levels) -> (n, width) sums of code vectors; for product quantisation they lie side by side."""
        return [_by_rows(part.look_up, rows) for part, rows in zip(self.parts, codes, strict=True)]

    def decode(self, codes: Sequence[Codes]) -> list[Vectors]:
        """(n, levels) -> (n, dim) reconstructions in the table's own space; an extra level is ignored."""
        return [
            _by_rows(lambda chunk, part=part: part.decode(part.look_up(chunk)), rows)
            for part, rows in zip(self.parts, codes, strict=True)
        ]

    def distances(self, part: int, vectors: Vectors, codes: Codes | None = None) -> np.ndarray:
        """(n, codes of the last level) squared distances to the codes of the last level, given an item's codes before.

        Args:
            part: number of the part.
            vectors: (n, dim) of the part's table.
            codes: (n, levels) as `assign` gave them; None assigns anew.
        """
        chosen = self.parts[part]
        if codes is None:
            latent = torch.from_numpy(_by_rows(chosen.encode, vectors))
            codes = chosen.choose(latent).numpy()
        return _by_rows(lambda rows, own: squared_distances(*chosen.last(chosen.encode(rows), own)), vectors, codes)

    def tensors(self) -> dict[str, Tensor]:
        """As `model.safetensors` holds them: `codebooks.<part>.<level>` and the rest of every part."""
        tensors = {}
        for number, part in enumerate(self.parts):
            for name, tensor in part.tensors().items():
                first, _, rest = name.partition(".")
                tensors[".".join(filter(None, [first, str(number), rest]))] = tensor
        return tensors

    @classmethod
    def from_tensors(cls, settings: SemanticIds, tensors: Mapping[str, Tensor]) -> Quantizer:
        """The inverse of `tensors`.

        Raises:
            ValueError: given codes have no quantiser.
        """
        code = implementation(settings)
        if not hasattr(code, "Part"):
            raise ValueError("given codes have no quantiser")
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, number, *rest = name.split(".")
            parts.setdefault(int(number), {})[".".join([first, *rest])] = tensor
        kind: type[PartQuantizer] = code.Part
        return cls(settings, [kind.from_tensors(settings, parts[number]) for number in sorted(parts)])


def load_quantizer(path: str | Path) -> Quantizer:
    """The quantiser of `model.safetensors` and `model.json`.

    Raises:
        ArtifactError: a file is missing, or the codes were given and nothing stands behind them.
    """
    tensors, description = read_model(path)
    settings = TypeAdapter[SemanticIds](SemanticIds).validate_python(description["settings"])
    if not tensors:
        raise ArtifactError(f"{path}: given codes have no quantiser")
    return Quantizer.from_tensors(settings, tensors)
