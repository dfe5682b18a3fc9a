"""Counts of what is like the target, beside a loop over events."""

from __future__ import annotations

import torch
from ctr_logs import make_run
from ctr_world import ITEMS, make_batch, make_catalogue, settings

from tessera.ctr.counts import Counts, Histogram, shared
from tessera.ctr.sid_index import Prefixes
from tessera.ctr.task import build
from tessera.ctr.train import most_events


def keys_of(prefixes: bool) -> torch.Tensor:
    torch.manual_seed(0)
    return Counts(make_catalogue(), prefixes).get_buffer("_keys")


def test_keys_are_the_item_its_category_and_its_prefixes() -> None:
    catalogue = make_catalogue()
    keys = keys_of(True)
    assert catalogue.codes is not None
    assert keys.shape == (ITEMS + 1, 2 + Prefixes(catalogue.codes).levels)
    assert keys[3, 0] == 3
    assert keys[3, 1] == (int(catalogue.categories[3]) or -1)
    assert (keys[[0, 7, 20], 2:] == -1).all(), "no codes, no prefixes"
    assert (keys[0] == -1).all(), "padding shares nothing"
    assert keys_of(False).shape == (ITEMS + 1, 2)


def test_scan_and_histogram_count_what_a_loop_counts() -> None:
    keys = keys_of(True)
    batch = make_batch([60, 0, 7, 31])
    found = shared(keys[batch.histories], keys[batch.items])
    for row, target in enumerate(keys[batch.items].tolist()):
        events = batch.histories[row, : batch.lengths[row]]
        counted = [sum(keys[e, c] == wanted >= 0 for e in events.tolist()) for c, wanted in enumerate(target)]
        assert found[row].tolist() == counted
        if len(events):
            items, often = torch.unique(events, return_counts=True)
            assert Histogram(keys[items], often).of(keys[batch.items[row : row + 1]])[0].tolist() == counted
    assert found[0].sum() > 0


def test_din_counts_the_whole_history_and_attends_to_its_window() -> None:
    model = build(settings(model="din", window=5, counts=True), make_catalogue()).eval()
    batch = make_batch([60, 0, 7, 31])
    assert most_events(model, make_run()) is None, "histories are not cut before they are counted"
    with torch.no_grad():
        assert torch.allclose(model(batch), model.logits(batch.latest(5)) + model.counts(batch), atol=1e-6)
        assert not torch.allclose(model.counts(batch), model.counts(batch.latest(5)), atol=1e-3)
    alone = build(settings(model="din", window=5), make_catalogue())
    assert most_events(alone, make_run()) == 5
