"""A report that fails: the page before it stays, and is made again by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_project import Project, copy_repository

pytestmark = pytest.mark.workflow


def test_the_old_page_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    project = Project(tmp_path / "tessera")
    copy_repository(project.folder)
    rows = "".join(f"u{user},i{(user + item) % 7},{item}\n" for user in range(12) for item in range(5))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}")
    config = {
        "datasets": {"own": {"source": "columns", "path": str(tmp_path / "log.csv"), "timestamp": "time"}},
        "experiment": {"datasets": ["own"], "systems": ["popular"]},
    }
    (project.folder / "own.yaml").write_text(yaml.safe_dump(config))
    arguments = ("--cores", "1", "--configfile", "own.yaml")
    done = project.snakemake(*arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    page = project.folder / "results/own/report/index.html"
    first = page.read_text()

    graph = project.folder / "results/own/report/rulegraph.mmd"
    graph.write_text("flowchart TB\n    a --> b\n    b --> a\n")  # an input that the page cannot be made of
    done = project.snakemake(*arguments)
    assert done.returncode == 1
    assert "the chart has a cycle" in done.stdout
    assert page.read_text() == first
    # no run takes the old page for the new one, though it stands where the new one is wanted
    assert project.snakemake(*arguments).returncode == 1
    assert page.read_text() == first

    graph.unlink()
    done = project.snakemake(*arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    assert page.stat().st_mtime > graph.stat().st_mtime
    assert "Nothing to be done" in project.snakemake(*arguments).stdout
    assert not list(page.parent.glob(".index.html*"))
