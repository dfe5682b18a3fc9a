"""The network of a run, whichever it is: items under a backbone, or a recommender that is a network of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from tessera.evaluation.judge import Scorer
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.model import ModelScorer, SequentialRecommender, build_model
from tessera.settings.runs import Run
from tessera.training.batches import WindowBatches
from tessera.training.loop import Batches

# recommender -> module with `build`, `batches` and `scorer`: loaded when used, and named to the workflow
NETWORKS = {
    "tiger": "tessera.recommenders.tiger",
    "mme_sid": "tessera.recommenders.mme_sid",
}


def _module(run: Run) -> Any:
    return import_module(NETWORKS[run.method.recommender])


def build_network(run: Run, popularity: np.ndarray, inputs: RunInputs) -> nn.Module:
    """The untrained network of a run; the caller has seeded torch. A batch gives (sum of losses, number of targets).

    Args:
        popularity: (items + 1,) training interactions an item.
        inputs: the files that it reads.
    """
    if run.backbone is not None:
        return build_model(run, popularity, inputs)
    network: nn.Module = _module(run).build(run, inputs, popularity)
    return network


def network_batches(network: nn.Module, run: Run, offsets: np.ndarray, items: np.ndarray) -> Batches:
    """What an epoch goes through: training histories as the network reads them."""
    if isinstance(network, SequentialRecommender):
        backbone = network.backbone
        return WindowBatches(offsets, items, backbone.window, backbone.overlap, run.training.batch_tokens)
    batches: Batches = _module(run).batches(network, run, offsets, items)
    return batches


def network_scorer(network: nn.Module, run: Run, device: torch.device) -> Scorer:
    """The network as it stands behind the judge's interface."""
    if isinstance(network, SequentialRecommender):
        return ModelScorer(network, device)
    scorer: Scorer = _module(run).scorer(network, run, device)
    return scorer
