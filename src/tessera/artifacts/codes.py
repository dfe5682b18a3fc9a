"""Semantic IDs as an artifact: which codes every item has, a part for each table that was quantised on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, check_ids, describe, read_table, write_table

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = -1
"""Stands for every code of a part that an item does not have."""


@dataclass(frozen=True)
class Part:
    """Codes that were made together."""

    name: str
    """The table quantised, or the names of several joined by `+`; `codes` where the origin is not known."""
    sizes: tuple[int, ...]
    """Codes to choose from, a level each; with `extra` the last is the level that tells items apart."""
    ordered: bool = True
    """Whether a level refines the one before it: false for product quantisation."""
    extra: bool = False
    """Whether the last level has no meaning but to tell items with equal codes apart."""

    @property
    def meaningful(self) -> int:
        """Levels that a codebook stands behind."""
        return len(self.sizes) - self.extra


@dataclass(frozen=True)
class SemanticIds:
    """The codes of a catalogue."""

    codes: NDArray[np.int64]
    """(items + 1, levels of all parts) codes from 0, ABSENT where an item lacks the part; row 0 is the padding."""
    parts: tuple[Part, ...]

    def of(self, part: int) -> NDArray[np.int64]:
        """(items + 1, levels) codes of one part."""
        start = sum(len(p.sizes) for p in self.parts[:part])
        return self.codes[:, start : start + len(self.parts[part].sizes)]

    def present(self, part: int) -> NDArray[np.bool_]:
        """(items + 1,) which items have the part."""
        mask: NDArray[np.bool_] = self.of(part)[:, 0] != ABSENT
        return mask


def write_codes(path: str | Path, ids: SemanticIds, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write semantic IDs; items without any code are left out."""
    items = np.flatnonzero((ids.codes != ABSENT).any(1))
    flat = pa.array(np.ascontiguousarray(ids.codes[items], np.int32).ravel())
    table = pa.table(
        {"item": pa.array(items, pa.int32()), "codes": pa.FixedSizeListArray.from_arrays(flat, ids.codes.shape[1])}
    )
    parts = [{"name": p.name, "sizes": list(p.sizes), "ordered": p.ordered, "extra": p.extra} for p in ids.parts]
    write_table(path, table, "semantic_ids", settings, inputs, parts=parts)


def read_codes(path: str | Path, count: int) -> SemanticIds:
    """Read semantic IDs keyed by item id, in any row order.

    Args:
        count: items of the catalogue.
    Raises:
        ArtifactError: wrong kind, ids outside 1..count or twice, a code outside its level.
    """
    table = read_table(path, "semantic_ids")
    check_ids(path, table, "item", count)
    parts = tuple(
        Part(p["name"], tuple(p["sizes"]), bool(p["ordered"]), bool(p["extra"])) for p in describe(path)["parts"]
    )
    items = table.column("item").to_numpy()
    values, repeats = np.unique(items, return_counts=True)
    if (repeats > 1).any():
        raise ArtifactError(f"{path}: item {values[repeats > 1][0]} stands {repeats.max()} times, expected once")
    column = table.column("codes").combine_chunks()
    sizes = np.array([size for part in parts for size in part.sizes])
    if column.type.list_size != len(sizes):
        raise ArtifactError(
            f"{path}: rows hold {column.type.list_size} codes, but its parts have {json.dumps(sizes.tolist())}"
        )
    rows = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(sizes)).astype(np.int64)
    bad = ((rows < ABSENT) | (rows >= sizes)).any(1)
    if bad.any():
        raise ArtifactError(
            f"{path}: item {items[bad][0]} has the codes {rows[bad][0].tolist()}, "
            f"expected numbers below {sizes.tolist()}"
        )
    codes = np.full((count + 1, len(sizes)), ABSENT, np.int64)
    codes[items] = rows
    ids = SemanticIds(codes, parts)
    for number, part in enumerate(parts):
        some = (ids.of(number) == ABSENT).any(1) & (ids.of(number) != ABSENT).any(1)
        if some.any():
            raise ArtifactError(f"{path}: item {np.flatnonzero(some)[0]} has only some of the codes of {part.name!r}")
    return ids


def read_codebooks(path: str | Path) -> dict[tuple[int, int], Tensor]:
    """(part, level) -> (codes, width) of the quantiser beside a file of semantic IDs; empty for given codes."""
    tensors = read_tensors(Path(path).with_name("model.safetensors"))
    codebooks = {}
    for name, tensor in tensors.items():
        kind, *numbers = name.split(".")
        if kind == "codebooks":
            part, level = map(int, numbers)
            codebooks[part, level] = tensor
    return codebooks
