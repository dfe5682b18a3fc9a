"""Neighbours made from the pairs that occur, against sorting a table of all items by all items: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tessera.data.cooccurrence import meetings
from tessera.recommenders.systems import item_knn
from tessera.recommenders.systems.base import TrainingHistories
from tessera.recommenders.systems.item_knn import ItemKNN
from tessera.settings.systems.item_knn import ItemKNNSettings


def zipf(users: int, items: int, mean: float, seed: int, met: float = 1.0) -> TrainingHistories:
    """Histories of a few heavy users and many light ones over items by Zipf's law; a share of the items is `met`."""
    draw = np.random.default_rng(seed)
    sizes = draw.lognormal(np.log(mean) - 0.5, 1.0, users).astype(int)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    weights = 1 / np.arange(1, max(1, int(items * met)) + 1)
    popular = draw.choice(len(weights), offsets[-1], p=weights / weights.sum())
    return TrainingHistories(offsets, (draw.permutation(items)[popular] + 1).astype(np.int32))


def plain(settings: ItemKNNSettings, histories: TrainingHistories, items: int) -> tuple[np.ndarray, np.ndarray]:
    """All similarities in one table, every row sorted, ties by id."""
    matrix = meetings(histories.offsets, histories.items, items, settings.max_history).astype(np.float32)
    matrix.data[:] = 1.0
    norms = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    table = (matrix.T @ matrix).toarray() / (norms[:, None] * norms + settings.shrinkage + 1e-12)
    np.fill_diagonal(table, 0.0)
    best = np.argsort(-table, axis=1, kind="stable")[:, : min(settings.neighbours, items)]
    return best, np.take_along_axis(table, best, 1)


@pytest.mark.parametrize("pairs", [2**21, 700, 1], ids=["one block", "some", "an item at a time"])
@pytest.mark.parametrize(
    ("users", "items", "neighbours", "shrinkage", "met"),
    [
        (30, 15, 6, 1.5, 1.0),
        (30, 15, 15, 0.0, 1.0),
        (30, 15, 100, 0.0, 1.0),
        (6, 200, 100, 10.0, 1.0),
        (200, 300, 40, 10.0, 0.3),
        (400, 120, 20, 10.0, 1.0),
        (1, 1, 100, 1.0, 1.0),
    ],
)
def test_neighbours_are_those_of_sorting_the_whole_table(
    users: int, items: int, neighbours: int, shrinkage: float, met: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_knn, "_PAIRS", pairs)
    settings = ItemKNNSettings(neighbours=neighbours, shrinkage=shrinkage, max_history=20)
    histories = zipf(users, items, 8, users + items, met)
    made = ItemKNN.fit(settings, histories, items)
    ids, similarities = plain(settings, histories, items)
    assert made["neighbours"].dtype == torch.int32
    np.testing.assert_array_equal(made["neighbours"], ids)
    np.testing.assert_array_equal(made["similarities"], similarities)


def test_nobody_has_met_anything() -> None:
    made = ItemKNN.fit(ItemKNNSettings(neighbours=3), TrainingHistories(np.zeros(4, int), np.zeros(0, np.int32)), 5)
    assert made["neighbours"].tolist() == [[0, 1, 2]] * 6
    assert not made["similarities"].any()


def test_blocks_cover_every_item_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn, "_PAIRS", 100)
    pairs = np.random.default_rng(0).integers(0, 60, 500)
    pairs[[0, 7, 8, 499]] = 1_000, 5_000, 100, 300
    blocks = list(item_knn._blocks(pairs))
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert blocks[-1][1] == len(pairs)
    assert all(pairs[start:stop].sum() <= 100 or stop == start + 1 for start, stop in blocks)
