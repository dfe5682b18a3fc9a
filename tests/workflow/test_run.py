"""The tiny config from nothing to the report, through the real Snakemake."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tiny_project import Project

from tessera.artifacts.tables import describe, read_table
from tessera.plan.graph import Plan
from tessera.plan.picture import flow_chart
from tessera.settings.config import load

pytestmark = pytest.mark.workflow


def test_everything_is_there(finished: Project) -> None:
    results = finished.folder / "results/tiny"
    page = (results / "report/index.html").read_text()
    assert "bazaar" in page
    for suffix in ("parquet", "csv", "md", "tex"):
        assert (results / f"tables/bazaar.{suffix}").stat().st_size
    runs = sorted(
        path.parent.relative_to(results / "bazaar/runs") for path in results.glob("bazaar/runs/*/*/*/metrics.json")
    )
    assert len(runs) == 3 + 2 * 2 + 4 * 2 + 13 + 1
    assert Path("oracle/oracle/seed-0") in runs
    table = (results / "tables/bazaar.csv").read_text()
    for name in ("popular", "item_knn", "markov", "gru4rec", "oracle"):
        assert name in table.lower()


def test_every_rule_has_a_log_and_a_benchmark(finished: Project) -> None:
    results = finished.folder / "results/tiny"
    rules = ("generate", "prepare", "pretrain", "caption", "tune", "embed", "table", "diagnose", "train", "evaluate")
    for rule in (*rules, "atlas", "quantize", "health", "oracle", "tables"):
        assert list((results / "logs" / rule).rglob("*.log")), rule
        assert list((results / "benchmarks" / rule).rglob("*.tsv")), rule
    assert (results / "benchmarks/report.tsv").is_file()


def test_metrics_follow_from_the_ranks(finished: Project) -> None:
    folder = finished.folder / "results/tiny/bazaar/runs/id/sasrec/seed-1"
    metrics = json.loads((folder / "metrics.json").read_text())
    ranks = read_table(folder / "evaluation.parquet", "evaluation").column("rank").to_numpy()
    assert metrics["users"] == len(ranks)
    assert metrics["metrics"]["Hit@10"] == pytest.approx((ranks <= 10).mean())
    assert describe(folder / "evaluation.parquet")["settings"]["system"] == "id"


def test_nothing_to_do(finished: Project) -> None:
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        done = finished.snakemake("--cores", "2", "--configfile", "config/tiny.yaml")
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        assert "Nothing to be done" in done.stdout
    # 4 s on a quiet machine; tests share theirs
    assert min(seconds) < 12


def test_another_working_directory(finished: Project, tmp_path: Path) -> None:
    snakefile = str(finished.folder / "Snakefile")
    config = str(finished.folder / "config/tiny.yaml")
    target = "results/tiny/bazaar/data/stats.json"
    done = finished.snakemake("-s", snakefile, "--directory", str(tmp_path), "--configfile", config, "-c1", target)
    assert done.returncode == 0, done.stdout
    there = tmp_path / "results/tiny/bazaar/data/interactions.parquet"
    assert there.read_bytes() == (finished.folder / "results/tiny/bazaar/data/interactions.parquet").read_bytes()


def test_the_embedded_default_is_found(finished: Project, tmp_path: Path) -> None:
    done = finished.snakemake("-s", str(finished.folder / "Snakefile"), "--directory", str(tmp_path), "-n")
    assert done.returncode == 0, done.stdout
    assert "mme_sid" in done.stdout


def test_lint(finished: Project) -> None:
    done = finished.snakemake("--lint", "--configfile", "config/tiny.yaml")
    assert "Congratulations" in done.stdout, done.stdout


def test_snakemake_report(finished: Project, tmp_path: Path) -> None:
    page = tmp_path / "report.zip"
    done = finished.snakemake("--report", str(page), "--configfile", "config/tiny.yaml")
    assert done.returncode == 0, done.stdout
    assert page.stat().st_size > 10_000


def test_the_chart_is_of_the_plan(finished: Project) -> None:
    chart = (finished.folder / "results/tiny/report/rulegraph.mmd").read_text()
    plan = Plan(load(finished.config()))
    assert chart.strip() == flow_chart(plan).strip()
    page = (finished.folder / "results/tiny/report/index.html").read_text()
    for name in ("collaborative", "semantic IDs", "mme_sid", "embedder", "captions"):
        assert name in page.split('class="graph"')[1].split("</svg>")[0]
