"""Kinds that lie in a folder of the user's own: run, shown, resumed, re-run alone, and refused like any other.

The recommender and the item encoder are the worked examples of docs/architecture.md.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import worked_examples
import yaml
from tiny_project import Project, copy_repository, environment, snakemake_command, trainers

from tessera.artifacts.tables import read_table

pytestmark = pytest.mark.workflow

FILES = Path(__file__).parent / "outside"
SHOWN = {"tables": 1, "report": 1}
JUDGED_CODES = {"quantize": 1, "health": 1, "atlas": 1, "train": 1, "evaluate": 1, **SHOWN}
TABLE = {"table": 1, "diagnose": 1, "atlas": 1, "quantize": 1, "health": 1, "train": 3, "evaluate": 3, **SHOWN}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a package `mine`, its config run to the end."""
    found = Project(tmp_path_factory.mktemp("outside") / "tessera", "own")
    copy_repository(found.folder)
    shutil.copytree(FILES, found.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    worked_examples.write_files(found.folder)
    done = found.snakemake("--cores", "2", "--configfile", "own.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    return found


def own(**changes: Any) -> Any:
    """The config with keys changed; a double underscore goes one level down."""
    config = yaml.safe_load((FILES / "own.yaml").read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        part = config
        for key in outer:
            part = part[key]
        part[last] = value
    return config


def test_they_stand_in_the_table_and_on_the_page(project: Project) -> None:
    results = project.folder / "results/own"
    rows = read_table(results / "tables/bazaar.parquet", "metrics").to_pylist()
    shown = {(row["system"], row["recommender"]) for row in rows}
    assert shown == {
        ("popular", "popular"), ("blend", "Blend"), ("blend_items", "gated"), ("codes", "gated"), ("oracle", "oracle"),
    }  # fmt: skip
    page = (results / "report/index.html").read_text()
    for name in ("blend_items", "words", "drawn", "gated"):
        assert name in page


def test_a_second_run_does_nothing(project: Project) -> None:
    done = project.snakemake("--cores", "2", "--configfile", "own.yaml")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mine/blend.py", {"train": 2, "evaluate": 2, **SHOWN}),  # the item encoder imports it
        ("mine/blend_settings.py", {"train": 1, "evaluate": 1, **SHOWN}),
        ("mine/blend_items.py", {"train": 1, "evaluate": 1, **SHOWN}),
        ("mine/gated.py", {"train": 2, "evaluate": 2, **SHOWN}),
        ("mine/words.py", TABLE),
        ("mine/words_settings.py", TABLE),
        ("mine/drawn.py", JUDGED_CODES),
        ("mine/recent.py", {}),
    ],
)
def test_an_edit_runs_what_reads_it(project: Project, path: str, expected: dict[str, int]) -> None:
    with project.edited(path, lambda text: text + "\n_MORE = 1\n"):
        assert project.stale("own.yaml") == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"systems__blend__fadin": 1}, "systems.blend.fadin: unknown key 'fadin' (value 1); did you mean 'fading'?"),
        ({"tables__words__with": 8}, "tables.words.with: unknown key 'with' (value 8); did you mean 'width'?"),
        ({"backbones__gated__flor": 1}, "backbones.gated.flor: unknown key 'flor' (value 1); did you mean 'floor'?"),
        ({"semantic_ids__drawn__code": 4}, "semantic_ids.drawn.code: unknown key 'code' (value 4); did you mean"),
        ({"systems__blend__table": "word"}, "systems.blend.table: unknown name 'word'; did you mean 'words'?"),
        (
            {"systems__blend__recommender": "mine.blend_settings:Blendd"},
            "systems.blend.recommender: module 'mine.blend_settings' has no 'Blendd'; did you mean 'Blend'?",
        ),
        (
            {"backbones__gated__kind": "mine.gated_setting:GatedMean"},
            "backbones.gated.kind: there is no module 'mine.gated_setting' in ",
        ),
        (
            {"tables__words__recipe": "mine.gated_settings:GatedMean"},
            "tables.words.recipe: 'mine.gated_settings:GatedMean' is no RecipeSettings: ",
        ),
    ],
)  # fmt: skip
def test_refused(project: Project, changes: dict[str, Any], expected: str) -> None:
    config = project.write_config(own(**changes))
    done = project.snakemake("-n", "--configfile", config)
    assert done.returncode == 1
    assert f"{config}: {expected}" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_killed_training_goes_on(project: Project, tmp_path: Path) -> None:
    run = "results/own/bazaar/runs/blend/Blend/seed-1"
    long = project.write_config(own(training={"epochs": 200, "patience": 200, "checkpoint_seconds": 0.0}), "long.yaml")
    folder = tmp_path / "resumed"
    subprocess.run(["cp", "-rp", str(project.folder), str(folder)], check=True)
    command = snakemake_command(f"{run}/model.safetensors", "--cores", "1", "--configfile", long)
    done = project.snakemake(*command[3:])
    assert done.returncode == 0, done.stdout[-4000:]
    state = folder / "state"
    with subprocess.Popen(
        command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        end = time.monotonic() + 120
        while not (saved := list(state.glob("*/*/*/checkpoint.safetensors"))) and time.monotonic() < end:
            time.sleep(0.02)
        assert saved, "no checkpoint within 120 s"
        for trainer in trainers(process):
            trainer.send_signal(signal.SIGKILL)
        assert process.communicate(timeout=300)[0] is not None
        assert process.returncode == 0
    assert "resum" in (folder / "results/own/logs/train/bazaar/blend/Blend/seed-1.log").read_text().lower()
    weights = [place / run / "model.safetensors" for place in (project.folder, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_configs_of_the_page_are_valid(project: Project) -> None:
    first, second = worked_examples.configs()
    common = {"datasets": {"bazaar": {"source": "bazaar"}}, "tables": first["tables"]}
    for shown in (first, second):
        run = {"datasets": ["bazaar"], **shown["experiment"]}
        config = project.write_config({**common, **shown, "experiment": run}, "shown.yaml")
        done = project.snakemake("results/own/tables/bazaar.md", "-n", "--configfile", config)
        assert done.returncode == 0, done.stdout[-3000:]


def test_a_click_model(project: Project) -> None:
    done = project.snakemake("--cores", "2", "--configfile", "own-ctr.yaml")
    assert done.returncode == 0, done.stdout[-6000:]
    rows = read_table(project.folder / "results/own-ctr/tables/lifelong-ctr.parquet", "metrics").to_pylist()
    assert {row["model"] for row in rows} == {"recent", "oracle"}
    assert "recent" in (project.folder / "results/own-ctr/report/index.html").read_text()
    assert project.stale("own-ctr.yaml") == {}
    with project.edited("mine/recent.py", lambda text: text + "\n_MORE = 1\n"):
        assert project.stale("own-ctr.yaml") == {"train_ctr": 1, "evaluate_ctr": 1, "tables": 1, "report": 1}
    with project.edited("mine/blend.py", lambda text: text + "\n_MORE = 1\n"):
        assert project.stale("own-ctr.yaml") == {}
