"""The last lines of a run: who won, and where everything is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tessera.plan.graph import Plan
from tessera.plan.jobs import Jobs
from tessera.plan.truth import knows_the_truth
from tessera.settings.config import load
from tessera.watch.closing import best, closing_lines

TABLE = """system,recommender,seeds,NDCG@10,NDCG@10 sd
popular,popular,1,0.1,
id,sasrec,3,0.2,0.01
text,sasrec,3,,
latent,sasrec,3,0.5,
oracle,oracle,1,0.9,
"""
CONFIG: dict[str, Any] = {
    "datasets": {"bazaar": {"source": "bazaar"}},
    "tables": {
        "latent": {"recipe": "latent"},
        "own": {"recipe": "collaborative"},
    },
    "semantic_ids": {"codes": {"quantizer": "rq_kmeans", "tables": "latent"}},
    "systems": {
        "truth": {"items": {"table": "latent"}},
        "coded": {"items": {"semantic_ids": "codes"}},
        "honest": {"items": {"table": "own"}},
    },
    "experiment": {"datasets": ["bazaar"], "systems": ["popular", "id", "truth", "coded", "honest"]},
}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.chdir(tmp_path)
    return Jobs(Plan(load(CONFIG)))


def test_who_reads_the_truth_is_no_winner(jobs: Jobs) -> None:
    """Itself, or through codes."""
    assert knows_the_truth(jobs.plan) == {"truth", "coded", "oracle"}


def test_the_best_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(TABLE)
    assert best(table, "NDCG@10", {"latent", "oracle"}) == ("id/sasrec", 0.2)
    assert best(table, "NDCG@10", {"latent", "oracle", "id"}) == ("popular", 0.1)
    assert best(table, "MRR", set()) is None
    assert best(tmp_path / "absent.csv", "NDCG@10", set()) is None
    table.write_text("model,seeds,AUC\ndin,3,0.61\nsim,3,0.64\noracle,1,0.8\n")
    assert best(table, "AUC", {"oracle"}) == ("sim", 0.64)


def test_the_last_lines(jobs: Jobs) -> None:
    table = Path(jobs.comparison.table_file("bazaar", "csv"))
    table.parent.mkdir(parents=True)
    table.write_text(TABLE.replace("latent", "truth"))
    lines = closing_lines(jobs, ["logs", "more"], 200.0)
    assert lines == [
        "Best on bazaar: id/sasrec, NDCG@10 0.2000",
        f"Table: {table.with_suffix('.md').resolve()}",
        f"Report: {Path(jobs.comparison.page).resolve()}",
        "Logs: logs, more",
        "Time: 3 min 20 s",
    ]
    assert closing_lines(jobs, ["logs"], 5.0, whole=False) == ["Logs: logs", "Time: 5 s"]


def test_what_is_counted_has_the_name_that_the_page_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = CONFIG | {
        "systems": CONFIG["systems"] | {"chain": {"recommender": "markov"}},
        "experiment": {"datasets": ["bazaar"], "systems": ["chain", "id"]},
    }
    jobs = Jobs(Plan(load(config)))
    table = Path(jobs.comparison.table_file("bazaar", "csv"))
    table.parent.mkdir(parents=True)
    table.write_text("system,recommender,seeds,NDCG@10\nchain,markov,1,0.3\nid,sasrec,3,0.2\n")
    assert closing_lines(jobs, ["logs"], 5.0)[0] == "Best on bazaar: chain, NDCG@10 0.3000"


def test_the_best_among_drawn_candidates(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(TABLE.replace("NDCG@10", "NDCG@10 (100 sampled)"))
    assert best(table, "NDCG@10", {"oracle"}) == ("latent/sasrec", 0.5)
    assert best(table, "NDCG@1", {"oracle"}) is None
