"""A process whose share of a small batch is empty: it still has losses to give, with gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import START
from pattern import ITEMS, make_run, write_interests_of
from test_users_with_one_item import SYSTEMS
from torch import Tensor

from tessera.artifacts.tables import write_item_table
from tessera.data.dataset import load_dataset
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import recommender, training_histories
from tessera.training.machine import seed_step

EVERY: dict[str, dict[str, Any]] = {"ids": {"items": "ids"}, **SYSTEMS}


def backbones(name: str) -> list[str]:
    """Those under which a system runs; a system with a network of its own is asked once."""
    if name in ("eimf", "i3_mrec_graph"):
        return ["sasrec"]
    return ["sasrec", "gru4rec", "filter", "hstu", *(["bert4rec", "srgnn"] if name not in ("findrec", "cider") else [])]


@pytest.mark.parametrize(("name", "backbone"), [(name, backbone) for name in EVERY for backbone in backbones(name)])
def test_no_row_is_a_batch_too(name: str, backbone: str, data: Path, tmp_path: Path) -> None:
    table, words = tmp_path / "t.parquet", tmp_path / "w.parquet"
    rows = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    write_item_table(table, np.arange(1, ITEMS + 1), rows)
    write_interests_of(words, range(3, 60, 4))
    run = make_run(backbone, system=EVERY[name])
    dataset, inputs = load_dataset(data), RunInputs(tables={"t": str(table), "w": str(words)})
    seed_step(1)
    model = recommender(run).build(run, inputs.model_copy(update={"modalities": {"t": ["text"]}}), dataset.train_counts)
    model.train()
    histories = training_histories(dataset, model.reads_times)
    program = model.program(run, histories, None)
    batches = next(phase.batches for phase in reversed(program) if phase.batches is not None)
    losses = model.losses(batches.batch(np.zeros(0, np.int64)), START)
    values = [term.value for term in losses.values() if term.trained and isinstance(term.value, Tensor)]
    assert all(bool(value.isfinite()) for value in values)
    torch.stack([value.float() for value in values]).sum().backward()
