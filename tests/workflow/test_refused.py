"""A config that cannot run is refused before any job, in one message, with exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny_project import Project, copy_repository

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("refused") / "tessera"
    copy_repository(folder)
    return Project(folder)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training__epoch": 3}, ["training.epoch: ", "did you mean 'epochs'?"]),
        ({"training__learning_rate": "1e-4"}, ["training.learning_rate: ", "1.0e-4"]),
        ({"experiment__systems": ["idd"]}, ["experiment.systems.0: ", "'idd'", "did you mean 'id'?"]),
        (
            {"datasets__films": {"source": "movielens", "path": "nowhere/ml"}, "experiment__datasets": ["films"],
             "tables": {}, "semantic_ids": {}, "systems": {}, "experiment__systems": ["popular"], "significance": {}},
            ["datasets.films.path: ", "nowhere/ml"],
        ),
        (
            {"datasets__own": {"source": "columns", "path": "Snakefile"}, "experiment__datasets": ["own"],
             "tables": {}, "semantic_ids": {}, "systems": {}, "experiment__systems": ["popular"], "significance": {}},
            ["datasets.own.path: ", "Snakefile: has no column 'user'"],
        ),
    ],
    ids=["unknown key", "text for a number", "unknown system", "missing file", "missing column"],
)  # fmt: skip
def test_refused(project: Project, changes: dict[str, Any], expected: list[str]) -> None:
    config = project.write_config(project.config(**changes))
    done = project.snakemake("--cores", "1", "--configfile", config)
    assert done.returncode == 1
    for part in [config, *expected]:
        assert part in done.stdout
    assert "Traceback" not in done.stdout
    assert "Building DAG" not in done.stdout
    assert not (project.folder / "results").exists()


def test_a_failing_stage_tells_its_reason(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item\n" + "".join(f"{n},{n + 1}\n" for n in range(3)))
    config = {
        "datasets": {"own": {"source": "columns", "path": str(log)}},
        "experiment": {"datasets": ["own"], "systems": ["popular"]},
    }
    (project.folder / "own.yaml").write_text(yaml.safe_dump(config))
    done = project.snakemake("--cores", "1", "--configfile", "own.yaml")
    assert done.returncode == 1
    assert "ERROR: " in done.stdout
    assert "Traceback" not in done.stdout


def test_rejected_rows_can_be_looked_at_after_a_refusal(project: Project, tmp_path: Path) -> None:
    """What a failed job leaves: the rows and their reasons; and it is not tried again, for it would fail again."""
    log = tmp_path / "log.csv"
    log.write_text("user,item\n" + "u,i\n" * 5 + "alone\n" * 5)
    config = {
        "datasets": {"half": {"source": "columns", "path": str(log)}},
        "experiment": {"datasets": ["half"], "systems": ["popular"]},
    }
    (project.folder / "half.yaml").write_text(yaml.safe_dump(config))
    done = project.snakemake("--cores", "1", "--retries", "1", "--configfile", "half.yaml")
    assert done.returncode == 1
    assert "5 of 10 rows (50.0%) are unreadable" in done.stdout
    assert "not tried again" in done.stdout, done.stdout
    raw = project.folder / "results" / "half" / "raw"
    kept = pq.read_table(raw / "refused.parquet").to_pylist()
    assert [row["text"] for row in kept] == ["alone"] * 5
    assert not (raw / "rejected.parquet").exists()
