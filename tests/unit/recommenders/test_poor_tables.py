"""Tables that say little: of no item, of some, the same of all, or nothing that is left. Refused, told, or trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pattern import ITEMS

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import ArtifactError, write_item_table
from tessera.plan.graph import Plan
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.item_encoders.parts import standardized
from tessera.recommenders.item_encoders.table import TableItemEncoder
from tessera.recommenders.train import train_run
from tessera.settings.config import load
from tessera.settings.evaluation import Evaluation
from tessera.settings.items.table import TableItems
from tessera.settings.runs import Run

VIEWS = {"kind": "dual_view", "text": "t", "image": "p", "width": 8, "adapter": [8]}
SYSTEMS: dict[str, dict[str, Any]] = {
    "table": {"items": {"table": "t", "adapter": [8]}},
    "views": {"items": VIEWS},
    "pad": {"recommender": "pad", "table": "t", "adapter": [8]},
    "findrec": {"recommender": "findrec", "text": "t", "image": "p", "width": 12, "heads": 2, "alignment": {"dim": 4}},
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "image": "p", "adapter": [8]},
    "i3_mrec_graph": {"recommender": "i3_mrec_graph", "text": "t", "image": "p", "dim": 8},
    "cider": {
        "recommender": "cider", "items": VIEWS, "popularity": {"adjustment": "bins", "bins": 900},
        "counterfactual": {"bins": 900},
    },
    "tpad": {
        "recommender": "tpad", "text": "t", "image": "p",
        "disentangling": {"width": 6, "hidden": 8, "steps": 2, "items": 12},
    },
}  # fmt: skip


@pytest.mark.parametrize("ids", [np.arange(1, ITEMS + 1), np.array([4])])
def test_an_item_that_comes_later_stays_within_bounds(ids: np.ndarray) -> None:
    """Beside rows that are all alike, or a single one, nothing is known of how large a difference is."""
    rows, present = torch.zeros(ITEMS + 1, 3), torch.zeros(ITEMS + 1, dtype=torch.bool)
    rows[ids], present[ids] = 0.3, True
    encoder = TableItemEncoder(TableItems(table="t", adapter=[8]), rows, present, 4).eval()
    encoder.add_items({"t": (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([True]))})
    assert float(encoder()[-1].detach().abs().max()) < 10


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e12])
def test_the_scale_of_a_table_says_nothing(scale: float) -> None:
    rows = torch.randn((ITEMS, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    whole = torch.ones(ITEMS, dtype=torch.bool)
    torch.testing.assert_close(standardized(rows * scale, whole), standardized(rows, whole))


def run_of(name: str, **more: Any) -> Run:
    made_from = {"t": ["text"], "p": ["image"]}
    tables = {key: {"recipe": "vectors", "path": f"{key}.npy", "made_from": of} for key, of in made_from.items()}
    config = {
        "datasets": {"x": {"source": "bazaar"}}, "tables": tables, "systems": {"s": SYSTEMS[name]},
        "backbones": {"gru4rec": {"dim": 16, "max_length": 12}},
        "training": {"epochs": 1, "batch_tokens": 400, "device": "cpu"},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": ["gru4rec"], "seeds": [1]}, **more,
    }  # fmt: skip
    return Plan(load(config)).runs[0]


def inputs(folder: Path, **rows: tuple[np.ndarray, np.ndarray]) -> RunInputs:
    """Both tables, whole unless their items and vectors are given."""
    ids, rng = np.arange(1, ITEMS + 1), np.random.default_rng(0)
    for name, width in (("t", 7), ("p", 5)):
        write_item_table(folder / f"{name}.parquet", *rows.get(name, (ids, rng.normal(size=(ITEMS, width)))))
    return RunInputs(tables={name: str(folder / f"{name}.parquet") for name in ("t", "p")})


def trains(run: Run, data: Path, read: RunInputs, folder: Path) -> None:
    """It is trained to finite weights, and judged."""
    output = folder / "model.safetensors"
    train_run(run, data, read, output, folder / "state")
    assert all(bool(torch.isfinite(value).all()) for value in read_tensors(output).values())
    judged = evaluate_run(run, Evaluation(), output, data, read, None, folder / "e.parquet", folder / "m.json")
    assert judged["users"] == 80


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_table_of_no_item_is_refused_before_training(name: str, data: Path, tmp_path: Path) -> None:
    read = inputs(tmp_path, t=(np.zeros(0, np.int64), np.zeros((0, 7))))
    with pytest.raises(ArtifactError, match="has no vector of any item of this dataset"):
        train_run(run_of(name), data, read, tmp_path / "model.safetensors", tmp_path / "state")
    assert not list((tmp_path / "state").rglob("*.safetensors"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_one_that_says_the_same_of_all_is_told(
    name: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = inputs(tmp_path, t=(np.arange(1, ITEMS + 1), np.full((ITEMS, 7), 0.1)))
    trains(run_of(name), data, read, tmp_path)
    assert "the table 't' says the same of every item" in caplog.text


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_view_that_misses_items_trains(name: str, data: Path, tmp_path: Path) -> None:
    some = np.arange(1, ITEMS + 1, 2)
    trains(run_of(name), data, inputs(tmp_path, t=(some, np.random.default_rng(1).normal(size=(15, 7)))), tmp_path)


@pytest.mark.parametrize("name", SYSTEMS)
def test_items_that_lost_all_train_or_are_refused_first(name: str, data: Path, tmp_path: Path) -> None:
    run = run_of(name, missing={"image": 1.0, "text": 1.0})
    assert run.missing is not None
    if name != "tpad":
        trains(run, data, inputs(tmp_path), tmp_path)
        return
    with pytest.raises(ValueError, match="there is nothing to take apart; take features: side_by_side"):
        train_run(run, data, inputs(tmp_path), tmp_path / "model.safetensors", tmp_path / "state")
    assert not list((tmp_path / "state").rglob("*.safetensors"))
    # what is lost when judged alone was learned
    trains(run_of(name, missing={"image": 1.0, "text": 1.0, "when": "test"}), data, inputs(tmp_path), tmp_path)
