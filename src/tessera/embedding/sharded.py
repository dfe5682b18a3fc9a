"""Rows of a table that are made in shards, so that a kill does not lose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tessera.artifacts.logs import Progress, log
from tessera.artifacts.models import read_arrays, write_tensors
from tessera.embedding.recipe import Items, Vectors
from tessera.settings.language import Sharded
from tessera.training.shards import Shards

NAMED = 5
"""So many broken pictures of a shard are named in the log; all are counted."""


class RowShard(NamedTuple):
    """Rows of some items."""

    items: Items
    """(n,) those that could be shown, ascending."""
    vectors: Vectors
    """(n, width)."""
    broken: int
    """How many pictures cannot be read."""


def sharded_rows(
    items: Sequence[int], settings: Sharded, batch: int, width: int, state: Path,
    make: Callable[[Sequence[int]], RowShard],
) -> tuple[Items, Vectors]:  # fmt: skip
    """The rows of all items; a run that was killed goes on after the last complete shard and gives the same.

    Args:
        items: all items, ascending.
        batch: items that are read together.
        width: of the vectors.
        state: folder of the shards, named by everything that the rows depend on.
        make: what makes the rows of some items, group by group.
    Returns:
        (n,) ids of the items that could be shown, ascending, and (n, width) their vectors.
    Raises:
        ValueError: a shard is damaged.
    """
    shards = Shards(state, _save, partial(_load, width), ".safetensors", "this table")
    made: list[RowShard] = []
    with Progress("items", len(items), "items") as progress:
        for chosen, shard in shards.work(items, settings.shard, batch, make):
            made.append(shard)
            progress.update(len(chosen))
    if broken := sum(shard.broken for shard in made):
        log.info("%s pictures cannot be read; their items have no row", f"{broken:,}")
    return np.concatenate([shard.items for shard in made]), np.concatenate([shard.vectors for shard in made])


def name_broken(reasons: Sequence[str]) -> None:
    """Say why pictures of a shard cannot be read, of a few of them."""
    for reason in reasons[:NAMED]:
        log.info("%s", reason)


def _save(path: Path, shard: RowShard) -> None:
    arrays = {"items": shard.items, "vectors": shard.vectors, "broken": np.array([shard.broken])}
    write_tensors(path, {name: torch.from_numpy(value) for name, value in arrays.items()})


def _load(width: int, path: Path, items: Sequence[int]) -> RowShard:
    arrays = read_arrays(path)
    kept, vectors, (broken,) = arrays["items"], arrays["vectors"], arrays["broken"]
    if vectors.shape != (len(kept), width) or not np.isin(kept, items).all():
        raise ValueError
    return RowShard(kept, vectors, int(broken))
