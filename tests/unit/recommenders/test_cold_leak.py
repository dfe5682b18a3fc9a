"""A cut in time with items that open after it: nothing that is trained or counted sees what happened to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from dealt_out import deal_out_anew
from pattern import make_run, reads

from tessera.artifacts.models import read_tensors
from tessera.artifacts.tables import read_item_table, read_table
from tessera.data.collaborative import collaborative_table
from tessera.data.dataset import load_dataset
from tessera.data.vectors import import_table
from tessera.evaluation.cold import chance
from tessera.recommenders.evaluate import evaluate_run
from tessera.recommenders.train import train_run
from tessera.settings.evaluation import Evaluation
from tessera.settings.recipes.collaborative import CollaborativeTable
from tessera.settings.recipes.latent import LatentTable

WORLD = {
    "source": "bazaar", "users": 600, "items": 120, "late": 0.4, "tastes": 20, "cleaning": {"core": None},
    "catalogue": "all", "split": {"kind": "global_temporal", "valid": 0.1, "test": 0.2, "target": "new"},
}  # fmt: skip
LEFT_OUT = {"kind": "cross_entropy", "cold_items": "left_out"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "popular": {"recommender": "popular"},
    "item_knn": {"recommender": "item_knn"},
    "markov": {"recommender": "markov"},
    "ids": {"items": "ids"},
    "ids_left_out": {"items": "ids", "loss": LEFT_OUT},
    "table": {"items": {"table": "t", "adapter": [16]}},
    "table_left_out": {"items": {"table": "t", "adapter": [16]}, "loss": LEFT_OUT},
    "pad_table": {"recommender": "pad", "table": "t", "adapter": [16]},
    "pad_table_left_out": {"recommender": "pad", "table": "t", "adapter": [16], "loss": LEFT_OUT},
    "findrec_table": {"recommender": "findrec", "text": "t", "width": 16},
    "eimf": {"recommender": "eimf", "dim": 16, "max_length": 12},
    "cider_table": {"recommender": "cider", "items": {"table": "t", "adapter": [16]}, "counterfactual": {"tau": 0.3}},
    "mixture_table": {
        "recommender": "markov_mixture", "base": {"items": {"table": "t", "adapter": [16]}}, "similar": {"table": "t"},
        "weight": 0.2, "strength": 2.0,
    },
    "markov_table": {"recommender": "markov", "similar": {"table": "t"}},
    "tpad_table": {"recommender": "tpad", "text": "t", "disentangling": {"steps": 20}},
    "i3_mrec_table": {"recommender": "i3_mrec", "text": "t", "adapter": [16]},
    "i3_mrec_graph_table": {"recommender": "i3_mrec_graph", "text": "t", "dim": 16},
    "findrec_table_left_out": {"recommender": "findrec", "text": "t", "width": 16, "loss": LEFT_OUT},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, the same with the items of all held-out rows dealt out anew, and a table of content."""
    folder = tmp_path_factory.mktemp("cold")
    deal_out_anew(WORLD, folder)
    import_table(
        LatentTable.model_validate({"recipe": "latent"}), folder / "raw/latents.parquet", folder / "data/items.parquet",
        folder / "t.parquet",
    )  # fmt: skip
    (folder / "validated.json").write_text(
        json.dumps(
            {
                "best_epoch": 3,
                "best_epochs": {"pretrain": 2, "align": 2, "disentangle": 3, "transfer": 2, "recommend": 3},
            }
        )
    )
    return folder


def trained(world: Path, name: str, data: str = "data") -> Path:
    run = make_run(system=SYSTEMS[name], learning_rate=0.01)
    output = world / f"{name}-{data}/model.safetensors"
    if not output.is_file():
        table = world / "t.parquet" if "table" in name else None
        train_run(run, world / data, reads(table), output, world / "state", data, world / "validated.json")
    return output


def test_the_world_has_cold_targets(world: Path) -> None:
    dataset = load_dataset(world / "data")
    cold = dataset.train_counts == 0
    assert (load_dataset(world / "other").train_counts == dataset.train_counts).all()
    assert cold[dataset.cases("test").targets].sum() > 30
    cut = dataset.timestamps[dataset.split != 0].min()
    assert (dataset.timestamps[dataset.split == 0] < cut).all(), "nothing after the cut trains"
    assert not cold[dataset.items[dataset.split == 0]].any()


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_happened_after_the_cut_changes_nothing(name: str, world: Path) -> None:
    assert trained(world, name).read_bytes() == trained(world, name, "other").read_bytes()


def test_vectors_of_cold_items_are_as_they_began(world: Path) -> None:
    """Left out of the loss, an item that nobody met is never moved; as a negative it is pushed away."""
    cold = np.flatnonzero(load_dataset(world / "data").train_counts[1:] == 0) + 1
    left, pushed = (read_tensors(trained(world, n))["items.weight"][cold] for n in ("ids_left_out", "ids"))
    assert float(left.std()) == pytest.approx(0.02, rel=0.1)
    assert float(pushed.std()) > 0.04


def test_a_table_of_trained_vectors_leaves_them_out(world: Path) -> None:
    items = load_dataset(world / "data").n_items
    recipe = CollaborativeTable.model_validate({"recipe": "collaborative"})
    collaborative_table(recipe, trained(world, "ids"), world / "data", world / "c.parquet")
    _, present = read_item_table(world / "c.parquet", items)
    assert (present[1:] == (load_dataset(world / "data").train_counts[1:] > 0)).all()


def test_content_finds_new_items_and_ids_do_not(world: Path) -> None:
    found = {}
    for name in ("popular", "ids_left_out", "table_left_out"):
        run = make_run(system=SYSTEMS[name])
        model = trained(world, name)
        evaluate_run(
            run, Evaluation(), model, world / "data", reads(world / "t.parquet" if "table" in name else None), None,
            model.with_name("evaluation.parquet"), model.with_name("metrics.json"),
        )  # fmt: skip
        found[name] = json.loads(model.with_name("metrics.json").read_text())["groups"]["cold"]["cold only"]
    by_chance = found["ids_left_out"]["chance"]["Hit@5"]
    table = read_table(world / "popular-data/evaluation.parquet", "evaluation")
    cold = table.filter(pc.equal(table.column("popularity"), 0)).column("cold_candidates").to_numpy()
    assert by_chance == pytest.approx(float(chance(cold, Evaluation(cutoffs=[5]))["Hit@5"].mean()))
    assert found["table_left_out"]["metrics"]["Hit@5"] > 2 * by_chance
    spread = (by_chance / found["ids_left_out"]["users"]) ** 0.5
    assert abs(found["ids_left_out"]["metrics"]["Hit@5"] - by_chance) < 4 * spread
