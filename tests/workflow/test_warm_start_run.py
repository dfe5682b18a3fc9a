"""Two weeks of the demo world through Snakemake: next week's training goes on from last week's weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_project import Project, copy_repository

import tessera
from tessera.artifacts.models import read_tensors, write_tensors
from tessera.data.dataset import read_raw_ids

pytestmark = pytest.mark.workflow

SHOP: dict[str, Any] = {"source": "bazaar", "users": 300, "items": 100, "late": 0.4}
BASE: dict[str, Any] = {
    "tables": {"latent": {"recipe": "latent"}},
    "systems": {"latent": {"items": {"table": "latent", "adapter": [16]}}},
    "backbones": {"sasrec": {"dim": 16, "inner_dim": 32, "layers": 1, "max_length": 20}},
    "training": {"epochs": 12, "batch_tokens": 640, "patience": 3, "learning_rate": 1.0e-2},
    "significance": {"resamples": 100},
}
FIRST = BASE | {
    "datasets": {"shop": SHOP | {"cleaning": {"core": None, "until": "2022-05-31"},
                                 "split": {"kind": "global_temporal", "valid": 0.15, "test": 0.15}}},
    "experiment": {"datasets": ["shop"], "systems": ["id", "latent"], "seeds": [1], "final": ["id", "latent"]},
}  # fmt: skip
START = "last-week/runs"
SECOND = BASE | {
    "datasets": {"shop": SHOP | {"cleaning": {"core": {"users": 0, "items": 8}, "since": "2021-10-01"},
                                 "split": {"kind": "global_temporal", "valid": "2022-08-15", "test": "2022-12-01"}}},
    "systems": BASE["systems"] | {"cold": {"items": "ids", "training": {"warm_start": None}}},
    "training": BASE["training"] | {"warm_start": START},
    "experiment": {"datasets": ["shop"], "systems": ["popular", "id", "latent", "cold"], "seeds": [1], "final": "id"},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Last week ran, and was put away; this week ran from its final runs."""
    made = Project(tmp_path_factory.mktemp("warm") / "tessera")
    copy_repository(made.folder)
    for config in (FIRST, SECOND):
        done = made.snakemake("--cores", "2", "--configfile", made.write_config(config))
        assert done.returncode == 0, done.stdout[-6000:]
        if config is FIRST:
            shutil.move(final(made), made.folder / "last-week")
            shutil.rmtree(made.folder / "results")
    return made


def final(project: Project) -> Path:
    (folder,) = (project.folder / "results").rglob("shop-final/runs")
    return folder.parent


def run_folder(project: Project, run: str, dataset: str = "shop") -> Path:
    (folder,) = (project.folder / "results").rglob(f"{dataset}/runs/{run}/seed-1")
    return folder


def described(folder: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((folder / "model.json").read_text())
    return description


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_items_came_and_went(project: Project) -> None:
    before = set(read_raw_ids(project.folder / "last-week/data", "items"))
    warm = run_folder(project, "id/sasrec")
    now = set(read_raw_ids(warm.parents[3] / "data", "items"))
    description = described(warm)["warm_start"]
    counts = {"kept": len(now & before) - 1, "added": len(now - before), "gone": len(before - now)}
    assert {key: description[key] for key in counts} == counts
    assert min(counts.values()) > 0
    log = "\n".join(path.read_text() for path in (project.folder / "results").rglob("logs/**/id/sasrec/seed-1.log"))
    assert "continues from last-week/runs/id/sasrec/seed-1: {kept} items kept, {added} added".format(**counts) in log
    assert described(warm)["remarks"] == []


@pytest.mark.parametrize("system", ["id", "latent"])
def test_it_starts_higher_than_a_cold_run_and_ends_no_lower_than_it_starts(system: str, project: Project) -> None:
    warm, cold = (curve(run_folder(project, f"{name}/sasrec")) for name in (system, "cold"))
    assert [row["epoch"] for row in warm[:2]] == [0, 1]
    assert cold[0]["epoch"] == 1
    assert warm[0]["NDCG@10"] > cold[0]["NDCG@10"]
    best = max(row["NDCG@10"] for row in warm)
    assert described(run_folder(project, f"{system}/sasrec"))["validation"] == best >= warm[0]["NDCG@10"]


def test_tables_say_so_beside_the_numbers(project: Project) -> None:
    (table,) = (project.folder / "results").rglob("shop.md")
    assert f"id: goes on from the weights of {START}" in table.read_text()
    assert "cold: goes on" not in table.read_text()


def test_the_final_run_went_on_from_the_same(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    folder = run_folder(project, "id/sasrec", "shop-final")
    validated, description = described(run_folder(project, "id/sasrec")), described(folder)
    assert description["epochs"] == validated["best_epoch"]
    assert description["warm_start"]["weights"] == validated["warm_start"]["weights"]
    shop = tessera.load(folder)
    assert len(shop.recommend([shop.catalogue.raw_ids[1]], k=3)) == 3


def test_a_changed_start_makes_its_own_run_stale_and_no_other(project: Project) -> None:
    config = project.write_config(SECOND)
    assert project.stale(config) == {}
    weights = project.folder / START / "id/sasrec/seed-1/model.safetensors"
    before, status = weights.read_bytes(), weights.stat()
    write_tensors(weights, {name: value + 0.01 for name, value in read_tensors(weights).items()})
    try:
        assert project.stale(config) == {"train": 2, "evaluate": 1, "tables": 1, "report": 1}
    finally:
        weights.write_bytes(before)
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert project.stale(config) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"warm_start": "last-weak/runs"}}, "training.warm_start: last-weak/runs: no such file"),
        ({"training": {"warm_start": "last-week/data"}}, "last-week/data: holds no finished run 'id/sasrec/seed-1'"),
        ({"backbones": {"sasrec": {"dim": 32}}}, "backbones.sasrec.dim: is 32 here, 16 there"),
    ],
)
def test_what_cannot_be_gone_on_from_is_told_before_anything_runs(
    changes: dict[str, Any], words: str, project: Project
) -> None:
    done = project.snakemake("-n", "--configfile", project.write_config(SECOND | changes))
    assert done.returncode != 0
    assert words in done.stdout
    assert "Traceback" not in done.stdout


def test_a_start_that_saw_the_future_ends_its_training_with_a_word(project: Project) -> None:
    early = {"kind": "global_temporal", "valid": "2022-04-01", "test": "2022-12-01"}
    config = SECOND | {"datasets": {"early": {**SECOND["datasets"]["shop"], "split": early}}}
    config["experiment"] = {"datasets": ["early"], "systems": ["id"], "backbones": ["sasrec"], "seeds": [1]}
    done = project.snakemake("--cores", "2", "--configfile", project.write_config(config))
    assert done.returncode != 0
    assert "was trained on interactions up to 2022-05" in done.stdout
    assert not list((project.folder / "results").rglob("early/runs/**/model.json"))
