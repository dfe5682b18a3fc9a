"""Batches as backbones read histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pattern import make_run

from tessera.recommenders.backbones.two_views import TwoViews
from tessera.recommenders.systems.base import TrainingHistories
from tessera.recommenders.window_batches import window_batches
from tessera.settings.backbones.gru4rec import GRU4RecSettings
from tessera.settings.backbones.srgnn import SRGNNSettings
from tessera.settings.kinds import implementation

LENGTHS = np.minimum(np.random.default_rng(0).geometric(0.1, 2000) + 1, 60)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
HISTORIES = TrainingHistories(OFFSETS, np.ones(OFFSETS[-1], np.int32))


def backbone(settings: type[Any], targets: str) -> Any:
    chosen = settings(dim=8, max_length=20, targets=targets)
    return implementation(chosen)(chosen)


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("settings", [GRU4RecSettings, SRGNNSettings])
def test_where_a_window_has_one_target_every_step_has_as_many(settings: type[Any], views: bool) -> None:
    run = make_run(batch_tokens=400)
    sizes = {}
    for targets in ("all", "last"):
        made = backbone(settings, targets)
        read = TwoViews([made]) if views else made
        batches = window_batches(read, run, HISTORIES)
        vectors = torch.randn(2, read.dim)
        found = [len(read.examples(batches.batch(numbers).items, vectors).targets) for numbers in batches.plan(0, 0)]
        sizes[targets] = (min(found), max(found))
        assert sum(found) == batches.targets
    fewest, most = sizes["last"]
    assert most <= fewest + 2
    fewest, most = sizes["all"]
    assert most > 1.5 * fewest
