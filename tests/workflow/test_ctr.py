"""Click-through rate from nothing to the page, and what an edit of it runs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import Project, copy_repository

from tessera.artifacts.tables import read_table

pytestmark = pytest.mark.workflow

MODELS = ["din", "din_long", "sim_hard", "r2led", "lemur"]
READER = {"hidden": 8, "layers": 1, "heads": 2}
LEMUR = {"model": "lemur", "width": 8, "documents": READER, "queries": READER, "long": 20, "recent": 5, "token_dim": 8,
         "dim": 8, "category_dim": 4, "hidden": [8]}  # fmt: skip
SHOWN = {"tables": 1, "claims": 1, "report": 1}
CLAIM = {"name": "codes help", "better": "r2led", "than": "din", "metric": "AUC"}
JUDGED = {"evaluate_ctr": 5, "oracle_ctr": 1, **SHOWN}
TRAINED = {"train_ctr": 5, "evaluate_ctr": 5, **SHOWN}
# the reference's weights are read when the retrieval of others is judged
ONE_MODEL = {"train_ctr": 1, "evaluate_ctr": 1, **SHOWN}
SAMPLED = {"samples": 1, "train_ctr": 5, **JUDGED}


def config(**changes: Any) -> Any:
    """The tiny config under one seed and with a claim, with keys changed."""
    found = yaml.safe_load((Path(__file__).resolve().parents[2] / "config/ctr-tiny.yaml").read_text())
    always = {"experiment__seeds": [1], "claims": [CLAIM], "ctr__models__lemur": dict(LEMUR)}
    for path, value in {**always, **changes}.items():
        *outer, last = path.split("__")
        part = found
        for key in outer:
            part = part.setdefault(key, {})
        part[last] = value
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    found = Project(tmp_path_factory.mktemp("ctr") / "tessera")
    copy_repository(found.folder)
    done = found.snakemake("--cores", "2", "--configfile", found.write_config(config(), "ctr.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    return found


def test_everything_is_there(project: Project) -> None:
    results = project.folder / "results/tiny"
    runs = {path.parent.parent.name for path in results.glob("lifelong/ctr/runs/*/seed-*/metrics.json")}
    assert runs == {*MODELS, "oracle"}
    rows = read_table(results / "tables/lifelong-ctr.parquet", "metrics").to_pylist()
    assert {row["model"] for row in rows} == runs
    page = (results / "report/index.html").read_text()
    said = ["r2led", "lemur", "a reconstruction: no code was published", "oracle", "Semantic IDs", "Samples"]
    for part in (*said, "AUC against the time of a request", "Who beats whom", "Memory bank"):
        assert part in page
    (claim,) = read_table(results / "tables/lifelong-claims-ctr.parquet", "claims").to_pylist()
    assert claim["difference"] == pytest.approx(claim["better_mean"] - claim["than_mean"])
    assert "r2led is better than din in AUC" in page
    told = json.loads((results / "lifelong/ctr/runs/r2led/seed-1/metrics.json").read_text())
    assert 0 <= told["retrieval"]["recall"] <= 1
    assert told["latency"]["requests"] == 4
    assert (results / "report/plots/lifelong/ctr-auc.svg").is_file()


def test_every_rule_has_a_log_and_a_benchmark(project: Project) -> None:
    results = project.folder / "results/tiny"
    rules = ("samples", "content", "train_ctr", "evaluate_ctr", "oracle_ctr", "tables", "claims", "quantize", "health")
    for rule in rules:
        assert list((results / "logs" / rule).rglob("*.log")), rule
        assert list((results / "benchmarks" / rule).rglob("*.tsv")), rule


def test_nothing_to_do(project: Project) -> None:
    assert project.stale("ctr.yaml") == {}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("ctr__samples__per_user", 9, SAMPLED),
        ("ctr__training__learning_rate", 0.01, TRAINED),
        ("ctr__training__processes", 2, TRAINED),
        ("ctr__models__sim_hard__k", 4, ONE_MODEL),
        ("ctr__models__din_long__dim", 4, {"train_ctr": 1, "evaluate_ctr": 3, **SHOWN}),
        ("ctr__evaluation__calibration_bins", 9, JUDGED),
        ("ctr__evaluation__resamples", 300, SHOWN),
        ("ctr__evaluation__level", 0.1, SHOWN),
        ("ctr__content__vocabulary", 400, {"content": 1, **ONE_MODEL}),
        ("ctr__models__lemur__scale", 20.0, ONE_MODEL),
        ("ctr__baseline", "r2led", {"tables": 1, "report": 1}),
        ("claims", [{**CLAIM, "at_least": 0.1}], {"claims": 1, "report": 1}),
        ("semantic_ids__plain__codes", 6, {"quantize": 1, "health": 1, **ONE_MODEL}),
        ("datasets__lifelong__lifelong__noise", 0.3,
         {"generate": 1, "prepare": 1, "table": 1, "quantize": 1, "health": 1, "content": 1, **SAMPLED}),
        ("report__title", "Another title", {"report": 1}),
        ("resources__train__mem_mb", 700, {}),
    ],
)  # fmt: skip
def test_an_edit_runs_what_depends_on_it(project: Project, path: str, value: Any, expected: dict[str, int]) -> None:
    assert project.stale(project.write_config(config(**{path: value}))) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/tessera/ctr/models/r2led.py", ONE_MODEL),
        ("src/tessera/content/typed.py", ONE_MODEL),
        ("src/tessera/ctr/train.py", TRAINED | {"oracle_ctr": 1}),
        ("src/tessera/reporting/ctr_plots.py", {"report": 1}),
        ("src/tessera/reporting/ctr_claims.py", {"claims": 1, "report": 1}),
        ("src/tessera/recommenders/systems/tiger.py", {}),
    ],
)
def test_an_edit_of_code_runs_what_reaches_it(project: Project, path: str, expected: dict[str, int]) -> None:
    with project.edited(path, lambda text: text + "\n_MORE = 1\n"):
        assert project.stale("ctr.yaml") == expected
