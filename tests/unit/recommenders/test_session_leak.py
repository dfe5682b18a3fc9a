"""Sessions are held out as a whole: neither their targets nor what was met before trains anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dealt_out import deal_out_anew
from pattern import make_run, reads

from tessera.artifacts.models import read_tensors
from tessera.data.dataset import HISTORY, TRAIN, load_dataset
from tessera.data.vectors import import_table
from tessera.recommenders.train import train_run
from tessera.settings.recipes.latent import LatentTable

WORLD = {
    "source": "bazaar", "users": 40, "items": 60, "lifelong": {"clicks": 40},
    "cleaning": {"min_rating": 1.0, "core": {"users": 2, "items": 0}}, "sessions": {"kind": "gap", "minutes": 30},
}  # fmt: skip
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "markov": ("sasrec", {"recommender": "markov"}),
    "item_knn": ("sasrec", {"recommender": "item_knn"}),
    "tpad": ("srgnn", {"recommender": "tpad", "text": "t", "disentangling": {"steps": 5, "hidden": 16, "width": 8}}),
    "i3_mrec_graph": ("sasrec", {"recommender": "i3_mrec_graph", "text": "t", "dim": 8}),
    "cider": (
        "gru4rec", {"recommender": "cider", "items": {"table": "t", "adapter": [8]}, "counterfactual": {"tau": 0.3}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions, the same with all items of held-out sessions dealt out anew, and a table of content."""
    folder = tmp_path_factory.mktemp("sessions")
    deal_out_anew(WORLD, folder)
    recipe = LatentTable.model_validate({"recipe": "latent", "view": "text"})
    import_table(recipe, folder / "raw/latents.parquet", folder / "data/items.parquet", folder / "t.parquet")
    return folder


def test_sessions_are_held_out_whole(world: Path) -> None:
    dataset, other = load_dataset(world / "data"), load_dataset(world / "other")
    assert (dataset.split == HISTORY).sum() > 20
    assert (dataset.items != other.items)[dataset.split == HISTORY].any()
    assert (dataset.items == other.items)[dataset.split == TRAIN].all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_of_them_is_trained_on(name: str, world: Path) -> None:
    # validation chooses the epoch, as it may: with one epoch, nothing is chosen
    backbone, system = SYSTEMS[name]
    run = make_run(backbone, system=system, epochs=1)
    weights = []
    for data in ("data", "other"):
        output = world / f"{name}-{data}/model.safetensors"
        train_run(run, world / data, reads(world / "t.parquet"), output, world / "state", data)
        weights.append({key: value.numpy().tobytes() for key, value in read_tensors(output).items()})
    assert weights[0] == weights[1]
