"""Folders to hand on in the workflow: made where the experiment asks for them, and stale alone."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_project import Project, copy_repository

import tessera
from tessera.artifacts.files import read_json

pytestmark = pytest.mark.workflow

SMALL = {
    "experiment": {
        "datasets": ["bazaar"], "systems": ["popular", "id"], "backbones": ["sasrec"], "seeds": [1, 2],
        "export": ["id", "popular"], "final": ["popular"],
    },
    "training__epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("export") / "tessera")
    copy_repository(project.folder)
    done = project.snakemake(
        "--cores", "2", "--configfile", project.write_config(project.config(**SMALL), "small.yaml")
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_the_folders_are_there_and_open(made: Project) -> None:
    results = made.folder / "results/tiny"
    folder = results / "bazaar/export/id/sasrec"
    run, again = tessera.load(results / "bazaar/runs/id/sasrec/seed-1", "cpu"), tessera.load(folder, "cpu")
    history = run.catalogue.raw_ids[2:5]
    assert again.recommend(history).equals(run.recommend(history))
    told = read_json(folder / "export.json")
    assert told["run"] == "id/sasrec/seed-1"
    assert told["index"]["measured_on"].endswith("users of the dataset")
    assert told["index"]["recall"]["recall@10"] == 1
    assert (folder / "user_tower.onnx").is_file()
    metrics = read_json(results / "bazaar/runs/id/sasrec/seed-1/metrics.json")["metrics"]
    assert f"| NDCG@10 | {metrics['NDCG@10']:.4f} |" in (folder / "README.md").read_text()
    final = (results / "bazaar-final/export/popular/popular/README.md").read_text()
    assert "did not train on its validation and test targets" in final
    assert not (results / "bazaar/export/popular").exists()
    assert not list(results.rglob(".sasrec.*"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"export__licence": "mit"}, {"export": 2}),
        ({"export__index": "flat"}, {"export": 2}),
        ({"recommend__k": 3}, {"report": 1}),
        ({"resources__evaluate__mem_mb": 900}, {}),
    ],
    ids=str,
)
def test_only_what_is_read_makes_them_anew(made: Project, changes: dict[str, Any], expected: dict[str, int]) -> None:
    assert made.stale(made.write_config(made.config(**SMALL, **changes))) == expected


def test_a_push_without_a_token_is_refused_before_anything_runs(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(made.folder / "nobody"))
    changed = made.config(**SMALL, export__push="me/winner")
    changed["experiment"]["export"] = ["id"]
    done = made.snakemake("-n", "--configfile", made.write_config(changed))
    assert done.returncode != 0
    assert "export.push: no token of the Hugging Face Hub" in done.stdout
