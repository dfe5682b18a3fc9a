"""Files that are asked for by name, and folders that cannot be written to: one line, and no traceback of a rule."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.targets import check_targets, check_writable
from tessera.settings.base import ConfigError
from tessera.settings.config import load

CONFIG: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar"}},
    "systems": {"a.b": {"items": "ids"}},
    "search": {"systems": ["id"], "space": {"training.epochs": {"low": 1, "high": 2}}},
    "experiment": {"name": "mine", "datasets": ["shop"], "systems": ["popular", "id", "a.b"], "backbones": ["sasrec"],
                   "seeds": [5], "final": "id/sasrec"},
}  # fmt: skip


@pytest.fixture(scope="module")
def jobs() -> Jobs:
    return Jobs(Plan(load(CONFIG)))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop/runs/id/sasrec/seed-9/model.json", "'id/sasrec/seed-9' is none of the config's runs; "
         "did you mean 'id/sasrec/seed-5'? (known: a.b/sasrec/seed-5, id/sasrec/seed-5, "),
        ("shop-final/runs/id/sasrec/seed-1/model.json", "did you mean 'id/sasrec/seed-5'?"),
        ("shop/runs/popular/sasrec/seed-0/metrics.json", "(known: a.b/sasrec/seed-5, id/sasrec/seed-5, oracle/"),
        ("shop/recommendations/id/sasrec/seed-2.csv", "'id/sasrec/seed-2' is none of the config's recommendations"),
        ("shop/export/id/gru4rec", "did you mean 'id/sasrec'?"),
        ("shop/trials/popular/popular/trial-0/trial.json", "'popular/popular' is none of the config's trials"),
    ],
)  # fmt: skip
def test_files_of_no_run_are_refused(jobs: Jobs, target: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_targets(jobs, ["all", f"./results/mine/{target}"], "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: results/mine/{target}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_click_models_have_runs_of_their_own() -> None:
    ctr = {
        "task": "ctr",
        "ctr": {"samples": {"source": "impressions", "split": {"past": 0.7}}, "models": {"din": {"model": "din"}}},
    }
    experiment = {"name": "mine", "datasets": ["shop"], "seeds": [1]}
    lifelong = {"shop": {"source": "bazaar", "lifelong": {}}}
    clicks = Jobs(Plan(load({**ctr, "datasets": lifelong, "experiment": experiment})))
    check_targets(clicks, [f"results/mine/shop/ctr/runs/{run}/metrics.json" for run in ("din/seed-1", "oracle/seed-0")])
    with pytest.raises(ConfigError, match="did you mean 'din/seed-1'"):
        check_targets(clicks, ["results/mine/shop/ctr/runs/din/seed-2/metrics.json"])


def test_what_the_config_has_and_what_snakemake_judges_pass(jobs: Jobs) -> None:
    below = ["shop/runs/id/sasrec/seed-5/model.json", "shop-final/runs/id/sasrec/seed-5/model.json",
             "shop/runs/oracle/oracle/seed-0/metrics.json", "shop/recommendations/a.b/sasrec/seed-5.csv",
             "shop/export/id/sasrec", "shop/trials/id/sasrec/trial-3/trial.json", "shop/trials/id/sasrec/best.json",
             "shop/runs/id", "tables/shop.md", "other/runs/id/sasrec/seed-9/model.json"]  # fmt: skip
    check_targets(jobs, ["all", "train", *(f"results/mine/{one}" for one in below)])


@pytest.mark.parametrize("folder", [".", ".snakemake", "results", "results/mine"])
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable("results/mine", "mine.yaml")
    Path(folder).mkdir(parents=True, exist_ok=True)
    check_writable("results/mine", "mine.yaml")
    real: Callable[..., bool] = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path(folder) and real(path, mode))
    with pytest.raises(ConfigError) as caught:
        check_writable("results/mine", "mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: {Path(folder).resolve()}: cannot be written to")
