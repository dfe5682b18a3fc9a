"""A search with equal budgets: trials are jobs, the best goes on to the seeds, more trials train only themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_project import Project, copy_repository

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar", "users": 120, "items": 60, "mean_history": 12.0}},
    "systems": {"plain": {"items": "ids", "loss": {"kind": "bce"}}},
    "backbones": {"sasrec": {"dim": 16, "inner_dim": 16, "layers": 1, "max_length": 20}},
    "training": {"epochs": 2, "batch_tokens": 640, "checkpoint_seconds": 0.0},
    "search": {
        "trials": 2, "systems": ["id"],
        "space": {
            "training.learning_rate": {"low": 1.0e-3, "high": 3.0e-2, "log": True},
            "backbones.sasrec.dim": {"choices": [8, 24]},
        },
    },
    "significance": {"resamples": 200},
    "experiment": {"datasets": ["shop"], "systems": ["popular", "id", "plain"], "seeds": [1, 2]},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    found = Project(tmp_path_factory.mktemp("search") / "tessera")
    copy_repository(found.folder)
    done = found.snakemake("--cores", "2", "--configfile", found.write_config(CONFIG, "own.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return found


def read(project: Project, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(project.folder.glob(f"results/**/{pattern}"))]


def test_the_best_trial_is_what_all_seeds_train(project: Project) -> None:
    trials = read(project, "trials/id/sasrec/trial-*/trial.json")
    assert len(trials) == 2
    assert trials[0]["values"] != trials[1]["values"]
    best = max(trials, key=lambda trial: trial["validation"])
    (chosen,) = read(project, "trials/id/sasrec/best.json")
    assert chosen == {"values": best["values"]}
    for seed, run in enumerate(read(project, "runs/id/sasrec/seed-*/model.json"), 1):
        assert run["run"]["training"]["learning_rate"] == best["values"]["training.learning_rate"]
        assert run["run"]["backbone"]["dim"] == best["values"]["backbones.sasrec.dim"]
        if seed == best["seed"]:  # the same training
            assert run["validation"] == best["validation"]
    for run in read(project, "runs/plain/sasrec/seed-*/model.json"):
        assert run["run"]["backbone"]["dim"] == 16
    assert not list(project.folder.glob("results/**/trials/**/*.safetensors"))


def test_the_budget_stands_under_the_table_and_on_the_page(project: Project) -> None:
    text = next(project.folder.glob("results/**/tables/shop.md")).read_text()
    assert "id: settings chosen on validation among 2 quasi-random trials" in text
    assert "plain: settings not searched, where others had 2 trials" in text
    (page,) = project.folder.glob("results/**/report/index.html")
    assert "Best of 2 trials" in page.read_text()


def test_more_trials_run_alone_until_one_is_better(project: Project) -> None:
    assert project.stale("own.yaml") == {}
    more = project.write_config(CONFIG | {"search": CONFIG["search"] | {"trials": 3}}, "more.yaml")
    expected = {"trial", "choose", "train", "evaluate", "tables", "report"}
    stale = project.stale(more)
    assert stale["trial"] == 1
    assert set(stale) <= expected
    assert stale.get("train", 0) <= 2  # those of the other system stay


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"space": {"training.learning_rat": {"low": 0.1, "high": 0.2}}}, "did you mean 'learning_rate'?"),
        ({"space": {"backbones.sasre.dim": {"choices": [1, 2]}}}, "did you mean 'sasrec'?"),
        ({"systems": ["popular"]}, "search.systems.0: 'popular' is no trained system of the experiment"),
    ],
)
def test_what_cannot_be_searched_is_refused(project: Project, search: dict[str, Any], told: str) -> None:
    done = project.snakemake("-n", "--configfile", project.write_config(CONFIG | {"search": CONFIG["search"] | search}))
    assert done.returncode != 0
    assert told in done.stdout
