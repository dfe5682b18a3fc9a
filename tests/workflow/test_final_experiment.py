"""`experiment.final`: the winner trained again on every interaction, for as long as its validated run needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_project import Project, copy_repository

import tessera
from tessera.artifacts.tables import read_table

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    "datasets": {
        "shop": {
            "source": "bazaar", "users": 120, "items": 60, "cleaning": {"core": None},
            "split": {"kind": "global_temporal", "valid": 0.15, "test": 0.15},
        }
    },
    "tables": {"learned": {"recipe": "collaborative"}},
    "systems": {"learned": {"items": {"table": "learned", "adapter": [16]}}},
    "backbones": {"sasrec": {"dim": 16, "inner_dim": 32, "layers": 1, "max_length": 20}},
    "training": {"epochs": 6, "batch_tokens": 640, "patience": 2, "learning_rate": 1.0e-2},
    "significance": {"resamples": 100},
    "experiment": {
        "datasets": ["shop"], "systems": ["popular", "id", "learned"], "backbones": ["sasrec"], "seeds": [1, 2],
        "final": ["learned/sasrec", "popular"], "recommend": ["learned", "id"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    found = Project(tmp_path_factory.mktemp("final") / "tessera")
    copy_repository(found.folder)
    done = found.snakemake("--cores", "2", "--configfile", found.write_config(CONFIG, "own.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return found


def told(project: Project, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "results/tiny" / path / "model.json").read_text())
    return found


def rows(project: Project, dataset: str) -> list[dict[str, Any]]:
    return read_table(project.folder / f"results/tiny/{dataset}/data/interactions.parquet", "interactions").to_pylist()


def test_every_interaction_trains(project: Project) -> None:
    before, after = rows(project, "shop"), rows(project, "shop-final")
    assert {row["split"] for row in after} == {"train"}
    stats = json.loads((project.folder / "results/tiny/shop/data/stats.json").read_text())
    funnel = {step["step"]: step["interactions"] for step in stats["funnel"]}
    assert len(before) < len(after) == funnel["exact duplicates dropped"]
    assert not (project.folder / "results/tiny/shop-final/raw").exists()


@pytest.mark.parametrize("run", ["learned/sasrec/seed-1", "id/sasrec/seed-1"])
def test_each_run_takes_as_many_epochs_as_the_validated_one(project: Project, run: str) -> None:
    """Also the run whose vectors the winner reads."""
    validated, final = told(project, f"shop/runs/{run}"), told(project, f"shop-final/runs/{run}")
    assert final["epochs"] == final["best_epoch"] == validated["best_epoch"]
    assert final["validation"] is None
    assert validated["validation"] is not None
    curve = (project.folder / f"results/tiny/shop-final/runs/{run}/history.jsonl").read_text().splitlines()
    assert len(curve) == validated["best_epoch"]
    assert not any("NDCG" in line for line in curve)


def test_only_what_is_asked_is_made(project: Project) -> None:
    made = sorted(path.parent.relative_to(project.folder / "results/tiny/shop-final/runs").as_posix()
                  for path in (project.folder / "results/tiny/shop-final/runs").rglob("model.json"))  # fmt: skip
    assert made == ["id/sasrec/seed-1", "learned/sasrec/seed-1", "popular/popular/seed-0"]
    assert not list((project.folder / "results/tiny/shop-final").rglob("metrics.json"))
    table = read_table(project.folder / "results/tiny/tables/shop.parquet", "metrics")
    assert set(table.column("dataset").to_pylist()) == {"shop"}


def test_lists_come_from_the_final_run_where_there_is_one(project: Project) -> None:
    results = project.folder / "results/tiny"
    lists = sorted(path.relative_to(results).as_posix() for path in results.rglob("recommendations/**/*.parquet"))
    assert lists == [
        "shop-final/recommendations/learned/sasrec/seed-1.parquet", "shop/recommendations/id/sasrec/seed-1.parquet",
    ]  # fmt: skip


def test_a_final_run_is_loaded_like_any_other(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    shop = tessera.load("results/tiny/shop-final/runs/learned/sasrec/seed-1")
    found = read_table(Path("results/tiny/shop-final/recommendations/learned/sasrec/seed-1.parquet"), "recommendations")
    first = found.to_pylist()[0]["user"]
    users = read_table(Path("results/tiny/shop-final/data/users.parquet"), "users").to_pylist()
    number = next(row["user"] for row in users if row["raw_id"] == first)
    history = [shop.catalogue.raw_ids[row["item"]] for row in rows(project, "shop-final") if row["user"] == number]
    expected = [row["item"] for row in found.to_pylist() if row["user"] == first]
    assert shop.recommend(history, k=10)["item"].tolist() == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"report": {"title": "Another"}}, {"report": 1}),
        ({"evaluation": {"cutoffs": [5, 10]}}, {"evaluate": 5, "oracle": 1, "tables": 1, "report": 1}),
    ],
    ids=json.dumps,
)
def test_nothing_else_makes_them_stale(project: Project, changes: dict[str, Any], expected: dict[str, int]) -> None:
    assert project.stale(project.write_config(CONFIG | changes)) == expected


def test_a_final_run_follows_its_validated_one(project: Project) -> None:
    shorter = CONFIG | {"training": {**CONFIG["training"], "patience": 1}}
    found = project.stale(project.write_config(shorter))
    assert found["train"] == 4 + 2
    assert found["recommend"] == 2


def test_what_cannot_be_final_is_told_before_anything_runs(project: Project) -> None:
    for changes, words in (
        (
            {"final": ["lerned/sasrec"]},
            "experiment.final.0: unknown name 'lerned/sasrec'; did you mean 'learned/sasrec'?",
        ),
        ({"datasets": ["whole"]}, "experiment.datasets.0: split none has no test user"),
    ):
        config = CONFIG | {"experiment": CONFIG["experiment"] | changes}
        config["datasets"] = CONFIG["datasets"] | {"whole": {"source": "bazaar", "split": {"kind": "none"}}}
        done = project.snakemake("-n", "--configfile", project.write_config(config))
        assert done.returncode != 0
        assert words in done.stdout
