"""Vectors of pictures on the demo world: from an encoder's folder to a row of the table, and back to what is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pictures import write_encoder
from tiny_project import Project, copy_repository
from transformers import AutoImageProcessor, AutoModel

import tessera
from tessera.artifacts.tables import image_root, read_item_table, read_table
from tessera.data.pictures import open_picture

pytestmark = pytest.mark.workflow

ITEMS = {"table": "seen", "adapter": [16]}
CONFIG: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar", "users": 120, "items": 60, "mean_history": 12.0}},
    "models": {"eye": {"folder": "eye", "device": "cpu"}},
    "tables": {"seen": {"recipe": "image", "model": "eye", "whiten": 0.0, "batch": 8}},
    "systems": {
        "seen": {"items": ITEMS},
        "half_seen": {"items": ITEMS, "missing": {"image": 0.5}},
    },
    "backbones": {"sasrec": {"dim": 16, "inner_dim": 32, "layers": 1, "max_length": 20}},
    "training": {"epochs": 2, "batch_tokens": 640},
    "significance": {"resamples": 100},
    "experiment": {"datasets": ["shop"], "systems": ["popular", "seen", "half_seen"], "seeds": [1]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("image") / "tessera")
    copy_repository(made.folder)
    write_encoder(made.folder / "eye", "siglip")
    done = made.snakemake("--cores", "2", "--configfile", made.write_config(CONFIG, "own.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return made


def test_every_picture_has_its_row(project: Project) -> None:
    results = project.folder / "results/tiny/shop"
    items = read_table(results / "data/items.parquet", "items").to_pylist()
    pictured = {row["item"]: row["image"] for row in items if row["image"]}
    assert 0 < len(pictured) < len(items)  # the demo world has items without one
    vectors, present = read_item_table(results / "tables/seen.parquet", len(items))
    assert set(present.nonzero()[0].tolist()) == set(pictured)
    root = Path(str(image_root(results / "data/items.parquet")))
    model = AutoModel.from_pretrained(project.folder / "eye").eval()
    processor = AutoImageProcessor.from_pretrained(project.folder / "eye", backend="pil")
    for item in list(pictured)[::10]:
        inputs = processor(images=open_picture(root / pictured[item]), return_tensors="pt")
        with torch.no_grad():
            expected = model.get_image_features(**inputs).pooler_output[0].numpy()
        np.testing.assert_allclose(vectors[item], expected, rtol=2e-4, atol=2e-5)


def test_systems_are_compared_and_one_that_lost_pictures_says_so(project: Project) -> None:
    table = (project.folder / "results/tiny/tables/shop.md").read_text()
    assert "seen" in table
    assert "without 50% of the pictures" in table
    (page,) = project.folder.glob("results/tiny/report/index.html")
    assert "seen" in page.read_text()


def test_it_is_loaded_and_what_has_no_picture_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    monkeypatch.chdir(project.folder)
    shop = tessera.load("results/tiny/shop/runs/seen/sasrec/seed-1")
    known = read_table(Path("results/tiny/shop/data/items.parquet"), "items").column("raw_id").to_pylist()
    assert len(shop.recommend(known[:2], k=5)) == 5
    new = pd.DataFrame({"item": ["new"], "title": ["a lamp"]})
    with pytest.raises(ValueError, match="seen: a new item cannot be placed: table 'seen' is of recipe image"):
        shop.with_items(new)
    assert len(shop.with_items(new, vectors={"seen": np.ones((1, 32))}).recommend(["new"], k=5)) == 5


def test_other_weights_make_it_again(project: Project) -> None:
    assert project.stale("own.yaml") == {}
    weights = project.folder / "eye/model.safetensors"
    save_file({name: weight * 2 for name, weight in load_file(weights).items()}, weights)
    stale = project.stale("own.yaml")
    assert stale == {"embed": 1, "diagnose": 1, "atlas": 1, "train": 2, "evaluate": 2, "tables": 1, "report": 1}
    edited = CONFIG | {"tables": {"seen": {**CONFIG["tables"]["seen"], "pooling": "projection"}}}
    done = project.snakemake("-n", "--configfile", project.write_config(edited, "wrong.yaml"))
    assert done.returncode != 0
    assert "siglip has no pooling 'projection' (it has: pooler, mean)" in done.stdout
