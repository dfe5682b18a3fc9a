"""A search with equal budgets: trials are jobs, the best goes on to the seeds, more trials train only themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tiny_project import Project, copy_repository

pytestmark = pytest.mark.workflow

NEIGHBOURS = "systems.item_knn.neighbours"

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
    "experiment": {
        "datasets": ["shop"], "systems": ["popular", "id", "plain"], "seeds": [1, 2], "export": ["id/sasrec"],
    },
    "export": {"onnx": False},
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


def test_what_is_handed_on_says_what_was_chosen(project: Project) -> None:
    (trained,) = read(project, "runs/id/sasrec/seed-1/model.json")
    (card,) = project.folder.glob("results/**/export/id/sasrec/README.md")
    said = yaml.safe_load(card.read_text().split("```yaml\n")[1].split("```")[0])
    assert said["chosen"] == trained["run"]["chosen"] != {}
    for part in ("training", "backbone"):
        assert said[part] == trained["run"][part]


def test_the_budget_stands_under_the_table_and_on_the_page(project: Project) -> None:
    text = next(project.folder.glob("results/**/tables/shop.md")).read_text()
    assert "id: settings chosen on validation among 2 quasi-random trials" in text
    assert "plain: settings not searched, where others had 2 trials" in text
    (page,) = project.folder.glob("results/**/report/index.html")
    assert "Best of 2 trials" in page.read_text()


def test_more_trials_run_alone_until_one_is_better(project: Project) -> None:
    assert project.stale("own.yaml") == {}
    more = project.write_config(CONFIG | {"search": CONFIG["search"] | {"trials": 3}}, "more.yaml")
    expected = {"trial", "choose", "train", "evaluate", "export", "tables", "report"}
    stale = project.stale(more)
    assert stale["trial"] == 1
    assert set(stale) <= expected
    assert stale.get("train", 0) <= 2  # those of the other system stay


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"space": {"training.learning_rat": {"low": 0.1, "high": 0.2}}}, "did you mean 'learning_rate'?"),
        ({"space": {"backbones.sasre.dim": {"choices": [1, 2]}}}, "did you mean 'sasrec'?"),
        (
            {"systems": ["popular"]},
            "search.systems.0: 'popular' is no system of the experiment that has settings to search",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(project: Project, search: dict[str, Any], told: str) -> None:
    done = project.snakemake("-n", "--configfile", project.write_config(CONFIG | {"search": CONFIG["search"] | search}))
    assert done.returncode != 0
    assert told in done.stdout


LEARNS: dict[str, Any] = CONFIG | {
    "search": {
        "trials": 4, "sampler": "tpe", "round": 2, "systems": ["id", "item_knn"],
        "space": CONFIG["search"]["space"] | {NEIGHBOURS: {"low": 1, "high": 50}},
    },
    "experiment": {"datasets": ["shop"], "systems": ["popular", "item_knn", "id"], "seeds": [1]},
}  # fmt: skip


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Project:
    pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    project = Project(tmp_path_factory.mktemp("learning") / "tessera")
    copy_repository(project.folder)
    done = project.snakemake("--cores", "2", "--configfile", project.write_config(LEARNS, "own.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return project


def test_a_later_round_is_what_the_sampler_asks_for(learning: Project) -> None:
    for row, paths in (("id/sasrec", set(CONFIG["search"]["space"])), ("item_knn/item_knn", {NEIGHBOURS})):
        trials = read(learning, f"trials/{row}/trial-*/trial.json")
        (asked,) = read(learning, f"trials/{row}/round-*.json")  # the first round asks nobody
        assert len(trials) == 4
        assert {*asked["values"]} == {"2", "3"}
        assert [trial["values"] for trial in trials[2:]] == [asked["values"]["2"], asked["values"]["3"]]
        assert all(trial["values"].keys() == paths for trial in trials)
        best = max(trials, key=lambda trial: trial["validation"])
        assert read(learning, f"trials/{row}/best.json") == [{"values": best["values"]}]
        (run,) = read(learning, f"runs/{row}/seed-*/model.json")
        assert run["run"]["chosen"] == best["values"]
    text = next(learning.folder.glob("results/**/tables/shop.md")).read_text()
    assert "id: settings chosen on validation among 4 TPE trials" in text
    assert r"item\_knn: settings chosen on validation among 4 TPE trials" in text
    assert not list(learning.folder.glob("state/**/*.safetensors"))


def test_rounds_are_jobs_that_are_stale_alone(learning: Project) -> None:
    assert learning.stale("own.yaml") == {}
    more = learning.write_config(LEARNS | {"search": LEARNS["search"] | {"trials": 5}}, "more.yaml")
    stale = learning.stale(more)
    assert (stale["trial"], stale["ask"], stale["choose"]) == (2, 2, 2)  # one of each row
    other = learning.write_config(LEARNS | {"search": LEARNS["search"] | {"seed": 1}}, "other.yaml")
    assert learning.stale(other)["trial"] == 8
    space = LEARNS["search"]["space"] | {NEIGHBOURS: {"low": 1, "high": 40}}
    heuristic = learning.write_config(LEARNS | {"search": LEARNS["search"] | {"space": space}}, "space.yaml")
    stale = learning.stale(heuristic)
    assert (stale["trial"], stale["ask"], stale["choose"]) == (4, 1, 1)
