"""Users with a single training item, who give nothing to predict: trained beside others, judged, and no trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from pattern import ITEMS, make_run, write_dataset, write_interests_of

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import read_table, write_item_table, write_table
from tessera.data.dataset import load_dataset
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.train import train_run
from tessera.settings.evaluation import Evaluation

SYSTEMS: dict[str, dict[str, Any]] = {
    "pad": {"recommender": "pad", "table": "t", "adapter": [8]},
    "findrec": {"recommender": "findrec", "text": "t", "width": 12, "heads": 2, "alignment": {"dim": 4}},
    "eimf": {"recommender": "eimf", "interests": "w", "dim": 16, "inner_dim": 12, "adapter": [8], "typical": 9},
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "adapter": [8], "ids": "environment"},
    "i3_mrec_graph": {"recommender": "i3_mrec_graph", "text": "t", "dim": 8},
    "cider": {"recommender": "cider", "items": {"table": "t", "adapter": [8]}},
    "tpad": {
        "recommender": "tpad", "text": "t", "disentangling": {"width": 6, "hidden": 8, "steps": 2, "items": 12},
    },
}  # fmt: skip
LONELY = (1, 2, 80)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("one"))
    rows = read_table(folder / "interactions.parquet", "interactions")
    later = pc.and_(pc.equal(rows.column("split"), "train"), pc.greater(rows.column("position"), 0))
    dropped = pc.and_(later, pc.is_in(rows.column("user"), pa.array(LONELY, pa.int32())))
    write_table(folder / "interactions.parquet", rows.filter(pc.invert(dropped)), "interactions")
    counts = np.diff(load_dataset(folder).train_histories()[0])
    assert [int(counts[user - 1]) for user in LONELY] == [1, 1, 1]
    return folder


@pytest.mark.parametrize("name", SYSTEMS)
def test_they_train_and_are_judged(name: str, data: Path, tmp_path: Path) -> None:
    table, words = tmp_path / "t.parquet", tmp_path / "w.parquet"
    rows = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    write_item_table(table, np.arange(1, ITEMS + 1), rows)
    write_interests_of(words, range(3, 60, 4))
    run = make_run(system=SYSTEMS[name], epochs=1)
    inputs = RunInputs(tables={"t": str(table), "w": str(words)})
    output = tmp_path / "model.safetensors"
    train_run(run, data, inputs, output, tmp_path / "state")
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())
    judged = evaluate_run(run, Evaluation(), output, data, inputs, None, tmp_path / "e.parquet", tmp_path / "m.json")
    ranks = {row["user"]: row["rank"] for row in read_table(tmp_path / "e.parquet", "evaluation").to_pylist()}
    assert judged["users"] == len(ranks) == 80
    assert all(ranks[user] >= 1 for user in LONELY)
