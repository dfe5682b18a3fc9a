"""A small catalogue and random impressions for tests of click-through models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.ctr.batch import Batch, Catalogue
from tessera.settings.clicks.base import CTRModel

ITEMS, LENGTH = 60, 90


def settings(**keys: Any) -> Any:
    small = {"dim": 8, "category_dim": 8, "hidden": [16]}
    return TypeAdapter(CTRModel).validate_python({**small, **keys})


def make_codes(sizes: tuple[int, ...] = (3, 3, 4), ordered: bool = True, extra: bool = False) -> SemanticIds:
    """Codes of which many are equal; two items have none."""
    rng = np.random.default_rng(3)
    codes = np.stack([rng.integers(0, size, ITEMS + 1) for size in sizes], 1)
    codes[[0, 7, 20]] = ABSENT
    return SemanticIds(codes, (Part("text", sizes, ordered, extra),))


def make_catalogue(codes: SemanticIds | None = None) -> Catalogue:
    rng = np.random.default_rng(1)
    categories = rng.integers(0, 6, ITEMS + 1)  # some items have none
    categories[0] = 0
    popularity = rng.integers(0, 9, ITEMS + 1)
    popularity[[0, 5]] = 0
    codes = codes or make_codes()
    generator = torch.Generator().manual_seed(0)
    books = {(0, level): torch.randn(size, 6, generator=generator) for level, size in enumerate(codes.parts[0].sizes)}
    return Catalogue(ITEMS, torch.from_numpy(categories), 5, torch.from_numpy(popularity), codes, books, 9)


def make_batch(lengths: list[int], seed: int = 0, shared: bool = False) -> Batch:
    """Random impressions; with `shared` all have the history of the first row."""
    rng = np.random.default_rng(seed)
    rows, size = len(lengths), max(lengths)
    favourites = rng.integers(1, ITEMS + 1, 25)  # interests recur
    histories = rng.choice(favourites, (rows, size))
    ages = np.sort(rng.integers(0, 10**7, (rows, size)), 1)[:, ::-1].copy()
    if shared:
        histories[:], ages[:] = histories[0], ages[0]
    there = np.arange(size) < np.array(lengths)[:, None]
    return Batch(
        users=torch.from_numpy(rng.integers(1, 10, rows)),
        items=torch.from_numpy(rng.integers(1, ITEMS + 1, rows)),
        histories=torch.from_numpy(histories * there),
        lengths=torch.tensor(lengths),
        ages=torch.from_numpy(ages * there),
        labels=torch.from_numpy(rng.integers(0, 2, rows).astype(np.float32)),
    )
