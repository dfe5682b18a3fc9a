"""The `tessera` command, as it is typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tessera import command
from tessera.artifacts.tables import write_table

ROOT = Path(__file__).resolve().parents[2]
RUN = CliRunner()


def told(*arguments: object, code: int = 0) -> str:
    done = RUN.invoke(command.app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_what_there_is() -> None:
    every = told("systems")
    for tag in ("tiger", "mme_sid", "popular", "sasrec", "crrl", "rq_vae", "cross_entropy", "r2led", "movielens"):
        assert f"  {tag} " in every
    assert "sasrec" in told("systems", "backbones")
    assert "tiger" not in told("systems", "backbones")
    assert "did you mean 'backbones'?" in told("systems", "backbone", code=1)


def test_a_config_that_fits_and_one_that_does_not(tmp_path: Path) -> None:
    tiny = ROOT / "config/tiny.yaml"
    assert "fits; 28 runs on bazaar" in told("check", tiny)
    more = tmp_path / "more.yaml"
    more.write_text("experiment: {systems: [popular, id], backbones: [sasrec], seeds: [1, 2, 3]}\n")
    assert "fits; 4 runs on bazaar" in told("check", tiny, more)
    more.write_text("experiment: {systems: [popular]}\nsignificance: {baseline: popular}\n")
    assert "fits; 1 run on bazaar" in told("check", tiny, more)
    more.write_text("training: {epoch: 3}\n")
    assert f"ERROR: {tiny}, {more}: training.epoch" in told("check", tiny, more, code=1), "either may be meant"
    wrong = told("check", tiny, more, code=1)
    assert "training.epoch: unknown key 'epoch' (value 3); did you mean 'epochs'?" in wrong
    assert "no such file" in told("check", tmp_path / "absent.yaml", code=1)
    more.write_text("tables: {mine: {recipe: vectors, path: nowhere.npy}}\nsystems: {t: {items: {table: mine}}}\n"
                    "experiment: {systems: [id, t]}\n")  # fmt: skip
    assert "nowhere.npy" in told("check", tiny, more, code=1)


def planned(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    code = "from tessera.command import main; main()"
    command = [sys.executable, "-c", code, "plan", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_plan_of_a_config(tmp_path: Path) -> None:
    done = planned("config/tiny.yaml")
    assert done.returncode == 0, done.stderr
    assert "nothing to be done" in done.stdout or re.search(r"\d+ jobs, about .* on 2 cores, at most", done.stdout)
    assert "rule train" not in done.stdout
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("training: {epoch: 3}\n")
    done = planned("config/tiny.yaml", str(wrong))
    assert done.returncode == 1
    assert "did you mean 'epochs'?" in done.stderr
    done = planned("nowhere.yaml")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "nowhere.yaml: no such file" in done.stderr
    done = planned("config/tiny.yaml", folder=tmp_path)
    assert done.returncode == 1
    assert "tessera init" in done.stderr


def test_a_plan_is_for_a_core_or_more() -> None:
    for cores in ("0", "-3"):
        done = planned("config/tiny.yaml", "--cores", cores)
        assert done.returncode == 2
        assert "1" in done.stderr
        assert "jobs" not in done.stdout


def write_metrics(
    path: Path, means: dict[str, float], protocol: str = "full", dataset: str = "x", users: int = 9, **rules: object
) -> Path:
    rows = {
        "protocol": [protocol] * len(means), "dataset": [dataset] * len(means),
        "system": list(means), "recommender": ["sasrec"] * len(means), "kind": [""] * len(means),
        "metric": ["NDCG@10"] * len(means), "mean": list(means.values()),
        "users": [users] * len(means),
    }  # fmt: skip
    write_table(path, pa.table(rows), "metrics", {"evaluation": rules})
    return path


def test_two_experiments_side_by_side(tmp_path: Path) -> None:
    first = write_metrics(tmp_path / "old/tables/x.parquet", {"id": 0.1, "text": 0.12})
    second = write_metrics(tmp_path / "new/tables/x.parquet", {"id": 0.1, "mine": 0.15})
    lines = [line.split() for line in told("compare", first, second).splitlines()]
    assert lines == [
        ["NDCG@10", "old", "new", "difference"], ["id/sasrec", "0.1000", "0.1000", "+0.0000"],
        ["text/sasrec", "0.1200"], ["mine/sasrec", "0.1500"],
    ]  # fmt: skip
    assert "did you mean 'NDCG@10'?" in told("compare", first, second, "--metric", "NDCG@11", code=1)
    other = write_metrics(tmp_path / "other/tables/y.parquet", {"id": 0.1}, dataset="y")
    assert "WARNING: of unlike datasets: 'x' and 'y'" in told("compare", first, other)
    sampled = write_metrics(tmp_path / "sampled/tables/x.parquet", {"id": 0.5}, protocol="100 sampled")
    assert "unlike protocols cannot stand side by side: 'full' and '100 sampled'" in told(
        "compare", first, sampled, code=1
    )
    assert "absent.parquet" in told("compare", first, tmp_path / "absent.parquet", code=1)


def test_numbers_that_came_about_in_another_way_are_told(tmp_path: Path) -> None:
    one, same, other = (
        write_metrics(tmp_path / f"{name}/tables/x.parquet", {"id": 0.1}, "9 sampled", users=users, mask_seen=seen)
        for name, users, seen in (("one", 1974, True), ("same", 1974, True), ("other", 50, False))
    )
    assert "WARNING" not in told("compare", one, same)
    assert told("compare", one, same).startswith("NDCG@10 (9 sampled) ")
    assert "WARNING: judged by unlike rules: evaluation.mask_seen: true and false\n" in told("compare", one, other)
    assert "WARNING: judged on unlike users: 1,974 and 50\n" in told("compare", one, other)


def test_click_models_of_two_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("old", 0.7), ("new", 0.75)):
        rows = {"dataset": ["x"], "model": ["mine"], "model_kind": ["din"], "kind": [""], "metric": ["AUC"],
                "mean": [value]}  # fmt: skip
        write_table(tmp_path / name / "tables/x-ctr.parquet", pa.table(rows), "metrics")
    monkeypatch.chdir(tmp_path / "old/tables")
    lines = told("compare", "x-ctr.parquet", "../../new/tables/x-ctr.parquet", "--metric", "AUC").splitlines()
    assert [line.split() for line in lines] == [
        ["AUC", "old", "new", "difference"], ["mine/din", "0.7000", "0.7500", "+0.0500"],
    ]  # fmt: skip


def test_a_run_that_is_none(tmp_path: Path) -> None:
    assert str(tmp_path) in told("recommend", tmp_path, "i1", code=1)
    assert str(tmp_path) in told("export", tmp_path, tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"]])
def test_help(arguments: list[str]) -> None:
    assert "Usage" in told(*arguments)
