"""A file from outside that is replaced by one with an older time: its size is recorded with the job that reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tessera.plan.graph import Noun, Plan
from tessera.plan.jobs import Jobs
from tessera.plan.params import Told
from tessera.settings.config import load

ROOT = Path(__file__).resolve().parents[3]
DATASET = "bazaar"


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """The tiny config with vectors, codes, scores, users and items from files."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/tiny.yaml").read_text())
    for name in ("vectors.npz", "codes.json", "scores.parquet", "users.txt", "items.txt"):
        (tmp_path / name).write_bytes(b"12345678")
    config["tables"]["given"] = {"recipe": "vectors", "path": str(tmp_path / "vectors.npz")}
    config["semantic_ids"]["given"] = {"quantizer": "given", "path": str(tmp_path / "codes.json")}
    config["systems"]["given"] = {"recommender": "given", "path": str(tmp_path / "scores.parquet")}
    config["systems"]["read"] = {"items": {"table": "given"}}
    config["systems"]["spelled"] = {"items": {"semantic_ids": "given"}}
    config["experiment"]["systems"] += ["given", "read", "spelled"]
    config["recommend"] = {"users": str(tmp_path / "users.txt"), "items": str(tmp_path / "items.txt")}
    return Jobs(Plan(load(config)))


READ: dict[str, Callable[[Jobs], Told]] = {
    "vectors.npz": lambda jobs: jobs.settings(Noun("table", "given"), DATASET),
    "codes.json": lambda jobs: jobs.settings(Noun("semantic_ids", "given"), DATASET),
    "scores.parquet": lambda jobs: jobs.settings(Noun("run", "given/given/seed-0"), DATASET),
    "users.txt": lambda jobs: jobs.serving.recommend(Noun("run", "popular/popular/seed-0")),
    "items.txt": lambda jobs: jobs.serving.recommend(Noun("run", "popular/popular/seed-0")),
}


@pytest.mark.parametrize("name", READ)
def test_another_size_is_another_job_and_the_same_text(name: str, jobs: Jobs, tmp_path: Path) -> None:
    before = READ[name](jobs)
    os.utime(tmp_path / name, (1e9, 1e9))
    assert repr(READ[name](jobs)) == repr(before)
    (tmp_path / name).write_bytes(b"123456789")
    os.utime(tmp_path / name, (1e9, 1e9))
    after = READ[name](jobs)
    assert repr(after) != repr(before)
    assert str(after) == str(before)


def test_what_the_experiment_makes_is_not_looked_at(jobs: Jobs, tmp_path: Path) -> None:
    """Its rules are run in order; a size would change under them."""
    for noun in (Noun("run", "read/sasrec/seed-1"), Noun("run", "spelled/sasrec/seed-1")):
        before = repr(jobs.settings(noun, DATASET))
        for named in jobs.inputs(noun, DATASET).values():
            for file in [named] if isinstance(named, str) else named:
                assert file.startswith(f"{jobs.root}/")
        (tmp_path / "vectors.npz").write_bytes(b"")
        assert repr(jobs.settings(noun, DATASET)) == before


def test_a_file_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    told = Told("text")
    assert repr(told.beside([tmp_path / "absent"])) == repr(told)
