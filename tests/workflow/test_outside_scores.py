"""Programs of docs/fair.md: run on our split, judged by `recommender: given`, and alone made again when they change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import worked_examples
from tiny_project import Project, copy_repository, environment

pytestmark = pytest.mark.workflow

CONFIG: dict[str, Any] = {
    "datasets": {"shop": {"source": "bazaar", "users": 150, "items": 60}},
    "systems": {"ease": {"recommender": "given", "path": "ease.parquet"}},
    "significance": {"resamples": 200, "baseline": "item_knn"},
    "claims": [{"name": "better than chance", "better": "ease", "than": "popular", "at_least": -0.9}],
    "experiment": {"datasets": ["shop"], "systems": ["popular", "item_knn", "ease"]},
}  # fmt: skip


def changed(systems: dict[str, Any], *names: str, **experiment: Any) -> dict[str, Any]:
    compared = {"systems": ["popular", "item_knn", *names], **experiment}
    claims = CONFIG["claims"] if "ease" in names else []
    return CONFIG | {"systems": systems, "claims": claims, "experiment": CONFIG["experiment"] | compared}


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"results/**/{pattern}")
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose dataset is prepared, with what EASE wrote of it, run to the end."""
    found = Project(tmp_path_factory.mktemp("given") / "tessera")
    copy_repository(found.folder)
    before = found.write_config(changed({}), "before.yaml")
    done = found.snakemake("--cores", "2", "--configfile", before, "--until", "prepare")
    assert done.returncode == 0, done.stdout[-4000:]
    program = found.folder / "ease.py"
    program.write_text(worked_examples.files("fair.md")["ease.py"])
    data = one(found.folder, "data/interactions.parquet").parent
    ran = subprocess.run(
        [sys.executable, program, data, "ease.parquet"], cwd=found.folder, env=environment(), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    done = found.snakemake("--cores", "2", "--configfile", found.write_config(CONFIG, "own.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return found


def test_its_row_stands_in_the_table_with_what_is_to_be_said(project: Project) -> None:
    text = next(path for path in project.folder.glob("results/**/tables/*.md")).read_text()
    assert "| ease | given |" in text
    assert "ease: ranked by a file of another program" in text
    assert "ease" in one(project.folder, "report/index.html").read_text()


def test_its_ranks_are_those_of_a_loop_over_the_file(project: Project) -> None:
    folder = project.folder
    data = one(folder, "data/interactions.parquet").parent
    rows = pl.read_parquet(data / "interactions.parquet").sort("user", "position")
    users, items = (pl.read_parquet(data / f"{kind}.parquet")["raw_id"].to_list() for kind in ("users", "items"))
    scores: dict[str, dict[str, float]] = {}
    for user, item, score in pl.read_parquet(folder / "ease.parquet").iter_rows():
        scores.setdefault(user, {})[item] = score
    judged = pl.read_parquet(one(folder, "ease/given/seed-0/evaluation.parquet"))
    assert len(judged) > 100
    for user, item, rank in judged.select("user", "item", "rank").iter_rows():
        seen = rows.filter((pl.col("user") == user) & (pl.col("split") != "test"))["item"].to_list()
        of_user = scores[users[user - 1]]
        others = [of_user[items[n - 1]] for n in range(1, len(items) + 1) if n not in {*seen, item}]
        own = of_user[items[item - 1]]
        above, equal = sum(s > own for s in others), sum(s == own for s in others)
        assert rank == (np.inf if item in seen else 1 + above + equal / 2)


@pytest.mark.parametrize("older", [False, True])
def test_another_file_judges_it_alone(older: bool, project: Project) -> None:
    """Also one that was unpacked or moved there with an older time, which is of another size."""
    assert project.stale("own.yaml") == {}
    file = project.folder / "ease.parquet"
    before, status = file.read_bytes(), file.stat()
    pl.read_parquet(file).with_columns(pl.col("score").neg()).write_parquet(file)
    if older:
        assert file.stat().st_size != status.st_size
        os.utime(file, (1e9, 1e9))
    try:
        assert project.stale("own.yaml") == {"train": 1, "evaluate": 1, "tables": 1, "claims": 1, "report": 1}
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_another_claim_is_tested_alone(project: Project) -> None:
    (shown,) = project.folder.glob("results/**/tables/shop-claims.md")
    assert "| better than chance | holds | ease/given is at most 0.9 worse than popular/popular" in shown.read_text()
    claims = [*CONFIG["claims"], {"name": "more", "better": "ease", "than": "item_knn", "metric": "tail Hit@5"}]
    assert project.stale(project.write_config(CONFIG | {"claims": claims}, "more.yaml")) == {"claims": 1, "report": 1}


@pytest.mark.parametrize(
    ("keys", "experiment", "told"),
    [
        ({"path": "eas.parquet"}, {}, "systems.ease.path: eas.parquet: no such file or folder; "),
        ({"score": "points"}, {}, "systems.ease.path: ease.parquet: has no column 'points' (for value)"),
        ({}, {"recommend": ["ease"]}, "experiment.recommend.0: 'ease' is only judged"),
        ({}, {"final": ["ease/given"]}, "experiment.final.0: 'ease/given' is only judged"),
        ({"seeds": [1, 2]}, {}, "systems.ease: path: 'ease.parquet' is one file for 2 seeds; put {seed} into it"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    project: Project, keys: dict[str, Any], experiment: dict[str, Any], told: str
) -> None:
    systems = {"ease": CONFIG["systems"]["ease"] | keys}
    done = project.snakemake("-n", "--configfile", project.write_config(changed(systems, "ease", **experiment)))
    assert done.returncode != 0
    assert told in done.stdout


def test_lists_of_rectools_are_judged(project: Project) -> None:
    """Where TESSERA_RECTOOLS names a Python that has RecTools, which ours does not."""
    python = os.environ.get("TESSERA_RECTOOLS")
    if python is None:
        pytest.skip("RecTools absent: set TESSERA_RECTOOLS to the Python of an environment with rectools and pyarrow")
    program = project.folder / "with_rectools.py"
    program.write_text(worked_examples.files("fair.md")["with_rectools.py"])
    data = one(project.folder, "data/interactions.parquet").parent
    ran = subprocess.run(
        [python, program, data, "rectools.parquet"], cwd=project.folder, env=environment(), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    given = {"recommender": "given", "path": "rectools.parquet", "user": "user_id", "item": "item_id"}
    config = project.write_config(changed({**CONFIG["systems"], "rectools": given}, "ease", "rectools"), "both.yaml")
    done = project.snakemake("--cores", "2", "--configfile", config)
    assert done.returncode == 0, done.stdout[-6000:]
    table = pl.read_parquet(next(project.folder.glob("results/**/tables/*.parquet")))
    overall = table.filter((pl.col("metric") == "NDCG@10") & (pl.col("kind") == ""))
    means = dict(zip(overall["system"], overall["mean"], strict=True))
    assert means["rectools"] > 0.5 * means["item_knn"]  # the same method, without order and shrinkage
