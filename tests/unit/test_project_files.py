"""What others find the project by: citation, catalog, container, continuous integration, editor support."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tessera import __version__

ROOT = Path(__file__).resolve().parents[2]
GENERAL = {"alignment", "heuristics"}
"""Pages that are of no one paper."""
PAPERS = {
    "lifelong_ctr": ("din", "sim", "eta", "sdim", "twin", "mirrn"),
    "filter": ("bsarec",),
    "ensemble": ("opinion-pool",),
    "distilled": ("distillation", "born-again"),
    "pairs": ("dpr",),
    "markov_mixture": ("fpmc", "knn-lm", "dirichlet-smoothing"),
}
"""Pages whose papers have other names."""


def entries() -> dict[str, str]:
    """Each entry of the bibliography by its key."""
    parts = re.split(r"^@\w+\{", (ROOT / "docs/references.bib").read_text(), flags=re.MULTILINE)[1:]
    return {part.partition(",")[0]: part for part in parts}


def test_the_version_is_told_once_over() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"version = {{{__version__}}}" in entries()["tessera"]
    assert citation["license"] == "Apache-2.0"


def test_every_system_has_its_paper() -> None:
    pages = {path.stem for path in (ROOT / "docs/systems").glob("*.md")} - GENERAL
    wanted = {key for page in pages for key in PAPERS.get(page, (page,))}
    assert wanted <= set(entries())


def test_entries_are_whole() -> None:
    for key, entry in entries().items():
        assert re.search(r"^  title = \{.+\},$", entry, re.MULTILINE), key
        assert re.search(r"^  year = \{\d{4}\},$", entry, re.MULTILINE), key
        assert entry.count("{") + 1 == entry.count("}"), key


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_editors_find_the_schema_of_every_config(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "workflow/schemas/config.schema.json"


def test_the_catalog_and_the_workflow_of_github_are_read() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    assert (ROOT / "workflow/envs").is_dir()
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for command in re.findall(r"(?:\./|\.ci/)\w+", commands):
        assert (ROOT / command).is_file(), command
    # the linters are those of .ci/run
    checks = re.findall(r"^ +check (.+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert checks
    assert all(check in commands for check in checks)


def test_the_container_installs_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = re.search(r"'\.\[([\w,]+)\]'", text)
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras[1].split(","))
