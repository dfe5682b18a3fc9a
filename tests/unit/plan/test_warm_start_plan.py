"""What a warm start adds to the plan, where its run is looked for, and what is refused before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_config import edited

from tessera.plan.graph import Noun
from tessera.plan.jobs import Jobs
from tessera.plan.required import check_files
from tessera.plan.warm_start import start_folder, warm_start_problems
from tessera.settings.base import ConfigError

ID = "id/sasrec/seed-1"


def leave_runs(root: Path, **changes: Any) -> Path:
    """Descriptions of all runs of the tiny config below `root/runs`, as an earlier workflow left them."""
    plan = edited(**changes)
    for run in plan.trained.values():
        folder = root / "runs" / run.path
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps({"run": run.model_dump(mode="json")}))
        (folder / "model.safetensors").touch()
    (root / "data").mkdir()
    (root / "data/items.parquet").touch()
    return root


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return leave_runs(tmp_path / "last-week/bazaar")


def jobs(path: Path | None, **changes: Any) -> Jobs:
    keys = {} if path is None else {"training__warm_start": str(path)}
    return Jobs(edited(**keys, **changes))


def problems(path: Path, **changes: Any) -> list[str]:
    return list(warm_start_problems(jobs(path, **changes)))


# ---------------------------------------------------------------- where it is looked for


def test_a_run_runs_or_datasets_with_runs(before: Path, tmp_path: Path) -> None:
    run = before / "runs" / ID
    for path in (run, before / "runs", before.parent):
        assert start_folder(str(path), ID, "bazaar") == run
        assert problems(path, experiment__systems=["popular", "id"], experiment__backbones=["sasrec"]) == []
    saved = tmp_path / "saved"
    shutil.copytree(run, saved)
    shutil.copy(before / "data/items.parquet", saved)
    files = jobs(saved).inputs(Noun("run", ID), "bazaar")
    assert files["start_items"] == str(saved / "items.parquet")


@pytest.mark.parametrize(
    ("path", "run", "words"),
    [
        ("last-weak", ID, "holds no 'last-weak'; did you mean 'last-week'?"),
        (
            "last-week/bazaar/runs",
            "id/sasrec/seed-7",
            "no finished run 'id/sasrec/seed-7'; did you mean 'id/sasrec/seed-",
        ),
        ("last-week/bazaar/runs", "idd/sasrec/seed-1", "did you mean 'id/sasrec/seed-1'?"),
        (
            "last-week",
            "id/gru4rec/seed-9",
            "no finished run 'bazaar/runs/id/gru4rec/seed-9'; did you mean 'bazaar/runs/id/",
        ),
    ],
)
def test_the_nearest_is_told(path: str, run: str, words: str, before: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        start_folder(str(tmp_path / path), run, "bazaar")
    assert words in str(error.value)


# ---------------------------------------------------------------- what reads it


def test_only_the_training_reads_it(before: Path) -> None:
    warm, cold, noun = jobs(before / "runs"), jobs(None), Noun("run", ID)
    files = {"start": "model.safetensors", "start_description": "model.json"}
    added = {key: str(before / "runs" / ID / name) for key, name in files.items()}
    added["start_items"] = str(before / "data/items.parquet")
    assert warm.inputs(noun, "bazaar") == cold.inputs(noun, "bazaar") | added
    assert warm.inputs(noun, "bazaar", judged=True) == cold.inputs(noun, "bazaar", judged=True)
    counted = Noun("run", "popular/popular/seed-0")
    assert warm.inputs(counted, "bazaar") == cold.inputs(counted, "bazaar")
    assert warm.settings(counted, "bazaar") == cold.settings(counted, "bazaar")
    table = Noun("table", "text")
    assert warm.settings(table, "bazaar") == cold.settings(table, "bazaar")


def test_one_system_alone_or_all_but_one(before: Path) -> None:
    path = str(before / "runs")
    one = Jobs(edited(systems__latent__training={"warm_start": path}))
    assert {run.system for _, run in one.going_on()} == {"latent"}
    but_one = jobs(before / "runs", systems__latent__training={"warm_start": None})
    systems = {run.system for _, run in but_one.going_on()}
    assert "id" in systems
    assert not {"latent", "popular"} & systems
    (remark,) = {remark for _, run in one.going_on() for remark in run.remarks if "goes on" in remark}
    assert remark == f"goes on from the weights of {path}"


def test_final_runs_go_on_too(before: Path) -> None:
    with_final = jobs(before / "runs", experiment__final="latent/sasrec")
    assert [run.path for name, run in with_final.going_on() if name == "bazaar-final"] == ["latent/sasrec/seed-1"]
    assert "start" in with_final.inputs(Noun("run", "latent/sasrec/seed-1"), "bazaar-final")


# ---------------------------------------------------------------- what is refused


def test_the_tiny_config_goes_on_from_itself(before: Path) -> None:
    assert problems(before / "runs") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"backbones__sasrec__dim": 32},
            "model.json: another system cannot go on from it: backbones.sasrec.dim: is 32 here, 16",
        ),
        ({"systems__latent__items__adapter": [16]}, "systems.latent.items.adapter: is [16] here, [32] there"),
        ({"systems__latent__items": {"kind": "ids"}}, "systems.latent.items: is ids here, table there"),
        ({"systems__tiger__heads": 1}, "systems.tiger.heads: is 1 here, 2 there"),
    ],
)
def test_another_system_is_refused(changes: dict[str, Any], words: str, before: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_files(jobs(before / "runs", **changes).plan, "my.yaml")
    assert "my.yaml: training.warm_start: " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"training__learning_rate": 1.0e-4, "training__epochs": 3},
        {"backbones__sasrec__dropout": 0.4},
        {"systems__tiger__beams": 7},
        {"systems__llmemb__items__align": {"weight": 0.5}},
        {"loss": {"kind": "bce"}},
        {"experiment__seeds": [1]},
        {"systems__reaemb__items__table": "text"},
    ],
    ids=str,
)
def test_what_weights_do_not_depend_on_may_change(changes: dict[str, Any], before: Path) -> None:
    assert problems(before / "runs", **changes) == []


def test_the_key_that_names_it_is_told(before: Path) -> None:
    wrong = str(before / "rums")
    lines = list(warm_start_problems(Jobs(edited(systems__latent__training={"warm_start": wrong}))))
    assert lines
    assert all(line.startswith(f"systems.latent.training.warm_start: {wrong}: no such file") for line in lines)
    backbone = Jobs(edited(backbones__sasrec__training={"warm_start": wrong}))
    assert any(line.startswith("backbones.sasrec.training.warm_start: ") for line in warm_start_problems(backbone))


def test_files_of_the_run_are_asked_for(before: Path) -> None:
    (before / "runs" / ID / "model.safetensors").unlink()
    (only,) = problems(before / "runs")
    assert f"{ID}/model.safetensors: no such file" in only
    (before / "runs" / ID / "model.safetensors").touch()
    (before / "runs" / ID / "model.json").write_text('{"recipe": "text"}')
    (only,) = problems(before / "runs")
    assert f"{ID}/model.json: describes no run of a recommender" in only


def test_a_pattern_in_its_path_is_refused(tmp_path: Path) -> None:
    lines = problems(leave_runs(tmp_path / "{last}/bazaar") / "runs")
    assert lines
    assert all(line.startswith(f"training.warm_start: {tmp_path}/{{last}}/") for line in lines)
    assert all("{ in a path is a pattern to Snakemake" in line for line in lines)


def test_heuristics_have_nothing_to_go_on_from(before: Path) -> None:
    lines = problems(before / "runs/popular/popular/seed-0", experiment__systems=["id"], experiment__seeds=[1])
    assert lines
    assert all("is of 'popular', which is fitted by counting and has no weights" in line for line in lines)


def test_what_the_config_writes_itself_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(jobs(None).file(Noun("run", ID), "bazaar")).parents[4]
    leave_runs(own)
    lines = problems(own / "runs", experiment__systems=["id"])
    assert lines
    assert all(
        "is in the folder of 'bazaar', which this config writes itself: keep the earlier run" in x for x in lines
    )
    handed_on = own / "export/id/sasrec"
    shutil.copytree(own / "runs" / ID, handed_on)
    shutil.copy(own / "data/items.parquet", handed_on)
    assert any("which this config writes itself" in line for line in problems(handed_on, experiment__systems=["id"]))
