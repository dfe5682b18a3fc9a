"""Two experiments in one place: each has its folder, and what they have in common is made once."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import Project, copy_repository

from tessera.artifacts.tables import describe, image_root

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    "datasets": {"bazaar": {"source": "bazaar", "users": 120, "items": 60, "mean_history": 12.0}},
    "tables": {"latent": {"recipe": "latent"}},
    "semantic_ids": {"plain": {"quantizer": "rq_kmeans", "tables": "latent", "codes": 8}},
    "systems": {
        "latent": {"items": {"table": "latent", "adapter": [16]}},
        "codes": {"items": {"semantic_ids": "plain"}},
    },
    "backbones": {"sasrec": {"dim": 16, "inner_dim": 32, "layers": 1, "max_length": 20}},
    "training": {"epochs": 2, "batch_tokens": 640},
    "significance": {"resamples": 100},
    "experiment": {
        "datasets": ["bazaar"], "systems": ["popular", "id", "latent", "codes"], "backbones": ["sasrec"], "seeds": [1],
    },
}  # fmt: skip
SHOWN = {"tables": 1, "report": 1}
CODES = {"quantize": 1, "health": 1, "atlas": 1, "train": 1, "evaluate": 1, **SHOWN}


def write(project: Project, path: str, **changes: Any) -> str:
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    for key, value in changes.items():
        *outer, last = key.split("__")
        part = config
        for name in outer:
            part = part[name]
        part[last] = value
    (project.folder / path).parent.mkdir(exist_ok=True)
    (project.folder / path).write_text(yaml.safe_dump(config))
    return path


def files(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file with its bytes, its time and its number on the disk."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_ino,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment, `first`."""
    made = Project(tmp_path_factory.mktemp("beside") / "tessera", owned=True)
    copy_repository(made.folder)
    done = made.snakemake("--cores", "1", "--configfile", write(made, "first.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    assert "taken over" not in done.stdout
    return made


@pytest.fixture(scope="module")
def first(project: Project) -> dict[str, tuple[str, int, int]]:
    """Its files before there was another."""
    return files(project.folder / "results/first")


@pytest.fixture(scope="module")
def second(project: Project, first: dict[str, tuple[str, int, int]]) -> str:
    """Another experiment with one system changed, run to its end."""
    config = write(project, "second.yaml", systems__latent__items__adapter=[8])
    assert first
    done = project.snakemake("--cores", "1", "--configfile", config)
    assert done.returncode == 0, done.stdout[-6000:]
    # generate, prepare, table, diagnose, atlas, quantize, health, rulegraph, oracle, and three runs
    assert "15 results of other experiments agree and are taken over: 15 from results/first" in done.stdout
    counts = {
        name: len(re.findall(rf"^(?:local)?rule {name}:", done.stdout, re.MULTILINE))
        for name in ("train", "evaluate", "generate", "quantize")
    }
    assert counts == {"train": 1, "evaluate": 1, "generate": 0, "quantize": 0}
    return config


def test_all_of_an_experiment_is_in_its_folder(project: Project, second: str) -> None:
    for name in ("first", "second"):
        folder = project.folder / "results" / name
        assert {path.name for path in folder.iterdir()} == {
            "bazaar", "benchmarks", "experiment.json", "logs", "report", "tables",
        }  # fmt: skip
    assert {path.name for path in (project.folder / "results").iterdir()} == {"first", "second"}


def test_only_what_differs_is_made(project: Project, second: str, first: dict[str, tuple[str, int, int]]) -> None:
    assert files(project.folder / "results/first") == first, "the first experiment is as it was"
    assert project.stale(second) == {}
    assert project.stale("first.yaml") == {}
    ours = files(project.folder / "results/second")
    data = {path for path in first if path.startswith("bazaar/")}
    assert data == {path for path in ours if path.startswith("bazaar/")}
    made = {path for path in data if ours[path] != first[path]}
    runs = Path("bazaar/runs/latent/sasrec/seed-1")
    assert made == {path for path in data if runs in Path(path).parents}
    for path in ("tables/bazaar.parquet", "report/index.html"):
        assert ours[path][0] != first[path][0]
    assert {path for path in first if path.startswith(("logs/", "benchmarks/"))} <= set(ours)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training__learning_rate": 0.02}, {"train": 3, "evaluate": 3, **SHOWN}),
        ({"semantic_ids__plain__codes": 7}, CODES),
        ({"significance__level": 0.1}, SHOWN),
    ],
    ids=str,
)
def test_an_edit_runs_what_it_would_have_run(
    project: Project, second: str, changes: dict[str, Any], expected: dict[str, int]
) -> None:
    text = (project.folder / second).read_text()
    try:
        assert project.stale(write(project, second, **{"systems__latent__items__adapter": [8], **changes})) == expected
    finally:
        (project.folder / second).write_text(text)


def test_an_edit_of_code_is_seen(project: Project, second: str) -> None:
    with project.edited("src/tessera/quantization/rq_kmeans.py", lambda text: text + "\n_MORE = 1\n"):
        assert project.stale(second) == CODES


def test_a_stage_that_runs_again_leaves_the_other_folder_alone(
    project: Project, second: str, first: dict[str, tuple[str, int, int]]
) -> None:
    text = (project.folder / second).read_text()
    changes: dict[str, Any] = {"systems__latent__items__adapter": [8], "training__epochs": 1}
    try:
        write(project, second, **changes, semantic_ids__plain__codes=9)
        done = project.snakemake("--cores", "1", "--configfile", second)
        assert done.returncode == 0, done.stdout[-6000:]
        ours = files(project.folder / "results/second")
        for path in ("runs/id/sasrec/seed-1/model.safetensors", "semantic_ids/plain/codes.parquet"):
            assert ours[f"bazaar/{path}"][0] != first[f"bazaar/{path}"][0]
        assert files(project.folder / "results/first") == first
    finally:
        (project.folder / second).write_text(text)


def test_another_config_of_the_same_name_is_refused(project: Project, second: str) -> None:
    other = write(project, "other/first.yaml")
    before = files(project.folder / "results/first")
    for arguments in (["--cores", "1"], ["-n"]):
        done = project.snakemake(*arguments, "--configfile", other)
        assert done.returncode == 1
        for part in ("experiment.name", "first.yaml made", "other/first.yaml", "--config experiment='{name: first-2}'"):
            assert part in done.stdout
        assert "Building DAG" not in done.stdout
        assert "Traceback" not in done.stdout
    assert files(project.folder / "results/first") == before
    named = project.snakemake("-n", "--configfile", other, "--config", "experiment={name: third}")
    assert named.returncode == 0, named.stdout
    assert "from results/first" in named.stdout
    assert "results/third/report/index.html" in named.stdout
    wrong = project.snakemake("-n", "--configfile", other, "--config", "experiment={name: a/b}")
    assert wrong.returncode == 1
    assert "experiment.name: 'a/b' names no folder below results/" in wrong.stdout
    shutil.rmtree(project.folder / "results/third")


def test_a_folder_outlives_the_one_that_it_was_taken_from(project: Project, second: str, tmp_path: Path) -> None:
    items = project.folder / "results/second/bazaar/data/items.parquet"
    assert describe(items)["image_root"] == "./raw/images"
    away = tmp_path / "first"
    (project.folder / "results/first").rename(away)
    try:
        pictures = list(Path(str(image_root(items))).glob("*.png"))
        assert pictures
        assert all(picture.is_relative_to(project.folder / "results/second") for picture in pictures)
        done = project.snakemake("-n", "--configfile", second)
        assert done.returncode == 0, done.stdout
        assert "taken over" not in done.stdout
    finally:
        away.rename(project.folder / "results/first")
