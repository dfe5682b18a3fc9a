"""Batches of training histories for a backbone."""

from __future__ import annotations

from tessera.recommenders.backbones.base import Backbone
from tessera.recommenders.systems.base import TrainingHistories
from tessera.settings.runs import Run
from tessera.training.batches import SingleTargetBatches, WindowBatches


def window_batches(
    backbone: Backbone, run: Run, histories: TrainingHistories, every_position: bool = False
) -> WindowBatches:
    """Windows of training histories as the backbone reads them; no target that it learns from is lost.

    With `every_position` all items of a window are targets, whatever the backbone would learn from by itself.
    """
    kind = SingleTargetBatches if backbone.last_only and not every_position else WindowBatches
    offsets, items, tokens = histories.offsets, histories.items, run.training.batch_tokens
    return kind(offsets, items, backbone.window, backbone.overlap, tokens, times=histories.times)
