"""Lists for all users in the workflow: made where the experiment asks for them, stale when what they read changes."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tiny_project import ROOT, Project

import tessera
from tessera.artifacts.tables import read_table
from tessera.plan.graph import Plan
from tessera.settings.config import load

pytestmark = pytest.mark.workflow

ASKED = {"experiment__recommend": ["reaemb/sasrec", "popular"]}
RUNS = len(Plan(load(yaml.safe_load((ROOT / "config/tiny.yaml").read_text()))).runs)
JUDGED = {"evaluate": RUNS, "oracle": 1, "tables": 1, "report": 1}


@pytest.fixture(scope="module")
def served(finished: Project) -> Iterator[Project]:
    """The finished project with lists of one trained run and of a heuristic."""
    config = finished.write_config(finished.config(**ASKED), "asked.yaml")
    assert finished.stale(config) == {"recommend": 2, "report": 1}
    done = finished.snakemake("--cores", "2", "--configfile", config)
    assert done.returncode == 0, done.stdout[-6000:]
    yield finished
    shutil.rmtree(finished.folder / "results/tiny/bazaar/recommendations")
    done = finished.snakemake("--cores", "2", "--configfile", "config/tiny.yaml")
    assert done.returncode == 0, done.stdout[-6000:]


def test_every_user_has_a_list(served: Project) -> None:
    folder = served.folder / "results/tiny/bazaar"
    users = read_table(folder / "data/users.parquet", "users").column("raw_id").to_pylist()
    for run in ("reaemb/sasrec/seed-1", "popular/popular/seed-0"):
        found = read_table(folder / f"recommendations/{run}.parquet", "recommendations")
        assert list(dict.fromkeys(found.column("user").to_pylist())) == users
        assert (folder / f"recommendations/{run}.csv").is_file()
    assert not (folder / "recommendations/reaemb/sasrec/seed-2.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"recommend__k": 3}, {"recommend": 2, "report": 1}),
        ({"recommend__attribute": {"category": "lamp"}}, {"recommend": 2, "report": 1}),
        ({"evaluation__cutoffs": [5, 10]}, JUDGED),
        ({"resources__evaluate__mem_mb": 900}, {}),
        ({"report__title": "Another"}, {"report": 1}),
        (
            {"systems__reaemb__items__adapter": [16]},
            {"train": 2, "evaluate": 2, "recommend": 1, "tables": 1, "report": 1},
        ),
    ],
    ids=json.dumps,
)
def test_only_what_is_read_makes_them_anew(served: Project, changes: dict[str, Any], expected: dict[str, int]) -> None:
    assert served.stale(served.write_config(served.config(**ASKED, **changes))) == expected


def test_a_stock_list_is_an_input(served: Project) -> None:
    stock = served.folder / "stock.txt"
    items = read_table(served.folder / "results/tiny/bazaar/data/items.parquet", "items").column("raw_id").to_pylist()
    stock.write_text("\n".join(items[:9]))
    config = served.write_config(served.config(**ASKED, recommend__items="stock.txt"))
    target = "results/tiny/bazaar/recommendations/id/sasrec/seed-1.parquet"
    done = served.snakemake("--cores", "1", "--configfile", config, "--", target)
    assert done.returncode == 0, done.stdout[-6000:]
    found = read_table(served.folder / target, "recommendations")
    assert set(found.column("item").to_pylist()) <= set(items[:9])
    stock.write_text("\n".join(items[:8]))
    again = served.snakemake("-n", "--configfile", config, "--", target)
    assert "recommend" in again.stdout
    assert "Nothing to be done" not in again.stdout


def test_a_wrong_name_or_file_is_told_before_anything_runs(served: Project) -> None:
    for changes, told in (
        ({"experiment__recommend": ["reaemb/sasrek"]}, "experiment.recommend.0: unknown name 'reaemb/sasrek'; did you"),
        ({"recommend__users": "nobody.txt"}, "recommend.users: nobody.txt: no such file or folder"),
    ):
        done = served.snakemake("-n", "--configfile", served.write_config(served.config(**changes)))
        assert done.returncode != 0
        assert told in done.stdout


def test_new_items_are_read_by_what_made_the_tables(served: Project, tmp_path: Path) -> None:
    """The title and attributes of an old item under a new id: captions are left out, so it stands near, not on it."""
    items = read_table(served.folder / "results/tiny/bazaar/data/items.parquet", "items").to_pylist()
    told = next(item for item in items if item["title"])
    attributes = dict(told["attributes"])
    names = sorted(attributes)
    with (served.folder / "new.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sku", "name", *names])
        rows.writerow(["brand-new", told["title"], *(attributes[name] for name in names)])
        rows.writerow([told["raw_id"], "known already", *([""] * len(names))])
    new = {"path": "new.csv", "id": "sku", "title": "name", "text": names}
    config = served.write_config(
        served.config(
            experiment__recommend=["reaemb/sasrec"], recommend__new_items=new, recommend__k=60, recommend__seen=True
        )
    )
    target = "results/tiny/bazaar/recommendations/reaemb/sasrec/seed-2.parquet"
    done = served.snakemake("--cores", "1", "--configfile", config, "--", target)
    assert done.returncode == 0, done.stdout[-6000:]
    found = read_table(served.folder / target, "recommendations").to_pandas()
    users = found.user.nunique()
    assert (found.item == "brand-new").sum() == users
    assert found.groupby("user").size().eq(len(items) + 1).all()
    assert found[found.item == told["raw_id"]].title.eq(told["title"]).all()
    # a copy of the run has all that reads them
    product = pd.DataFrame([{"item": "brand-new", "title": told["title"], **attributes}])
    shop = tessera.load(served.folder / "results/tiny/bazaar/runs/reaemb/sasrec/seed-2", device="cpu")
    shop.save(tmp_path / "kept")
    history = [[told["raw_id"]]]
    asked = [
        run.with_items(product).recommend(history, k=60, seen=True) for run in (shop, tessera.load(tmp_path / "kept"))
    ]
    pd.testing.assert_frame_equal(*asked)
    assert "brand-new" in set(asked[0].item)
    ids = served.snakemake(
        "--cores", "1", "--configfile", config, "--", "results/tiny/bazaar/recommendations/id/sasrec/seed-2.parquet"
    )
    assert ids.returncode != 0
    assert "id/sasrec knows an item by training on it alone, so new items cannot be placed" in ids.stdout
    again = served.snakemake("-n", "--configfile", served.write_config(served.config(**ASKED)))
    assert "Nothing to be done" in again.stdout, "lists without new items know nothing of them"
