"""What `./run` shows: one line of progress, problems in full, and the last lines."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import Project, copy_repository, environment

pytestmark = pytest.mark.workflow

SMALL: dict[str, Any] = {
    "datasets": {"bazaar": {"source": "bazaar", "users": 120, "items": 60}},
    "tables": {"latent": {"recipe": "latent"}},
    "systems": {"latent": {"items": {"table": "latent"}}},
    "training": {"epochs": 1},
    "experiment": {"datasets": ["bazaar"], "systems": ["popular", "latent"], "backbones": ["sasrec"], "seeds": [1]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("watch") / "tessera"
    copy_repository(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return Project(folder)


def command(project: Project, *arguments: str) -> list[str]:
    return [sys.executable, str(project.folder / "tools/run.py"), "--cores", "2", *arguments]


def run(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *arguments), cwd=project.folder, env=environment(), text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(project: Project) -> str:
    """The whole output of a run off a terminal."""
    done = run(project, "--configfile", "small.yaml")
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_lines_of_finished_jobs_and_the_last_five(first: str, project: Project) -> None:
    *lines, best, table, report, logs, took = first.splitlines()
    progress = [line for line in lines if re.match(r"\d+ of 14 jobs", line)]
    assert len(progress) >= 5
    assert progress[-1].startswith("14 of 14 jobs")
    finished = " ".join(progress)
    for job in ("generate bazaar", "train bazaar/latent/sasrec/seed-1", "evaluate bazaar/popular/popular/seed-0"):
        assert job in finished
    assert re.fullmatch(r"Best on bazaar: popular, NDCG@10 0\.\d{4}", best), "latent reads the truth, oracle is it"
    assert table == f"Table: {project.folder / 'results/small/tables/bazaar.md'}"
    assert report == f"Report: {project.folder / 'results/small/report/index.html'}"
    assert logs.startswith("Logs: ")
    assert re.fullmatch(r"Time: .*\d+ s", took)
    for noise in ("wildcards", "resources:", "localrule", "Building DAG", "\x1b", "epoch"):
        assert noise not in first


def test_snakemake_keeps_its_full_text_in_its_log(first: str, project: Project) -> None:
    (log, *_) = sorted((project.folder / ".snakemake/log").glob("*.log"))
    text = log.read_text()
    assert "rule train:" in text
    assert re.search(r"\b(\d+) of \1 steps \(100%\) done", text)


@pytest.mark.usefixtures("first")
def test_nothing_to_do(project: Project) -> None:
    done = run(project, "--configfile", "small.yaml")
    assert done.returncode == 0
    assert "Nothing to be done." in done.stdout
    assert "Best on bazaar: popular" in done.stdout


@pytest.mark.usefixtures("first")
def test_single_files_say_nothing_of_the_table(project: Project) -> None:
    done = run(project, "results/small/bazaar/data/stats.json", "--configfile", "small.yaml")
    assert done.returncode == 0
    assert "Best" not in done.stdout
    assert "Time: " in done.stdout


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("part", [("--forcerun", "prepare", "--until", "prepare"), ("--omit-from", "train")])
def test_some_stages_alone_say_nothing_of_the_table(project: Project, part: tuple[str, ...]) -> None:
    """It is another one's, or not there at all; and the jobs that do not run are not waited for."""
    done = run(project, "--configfile", "small.yaml", *part)
    assert done.returncode == 0, done.stdout
    *lines, logs, took = done.stdout.splitlines()
    assert logs.startswith("Logs: ")
    assert took.startswith("Time: ")
    assert not [line for line in lines if line.startswith(("Best", "Table", "Report"))]
    if "--until" in part:
        assert lines[-1].startswith("1 of 1 jobs; done: prepare bazaar"), lines


def test_what_jobs_warn_of_is_said(project: Project) -> None:
    rows = [f"u{n % 6},i{(n * n) % 5},{1_600_000_000 + n}" for n in range(60)]
    rows[7] = "u1,i2"
    (project.folder / "rows.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    source = {
        "source": "columns",
        "path": str(project.folder / "rows.csv"),
        "timestamp": "time",
        "cleaning": {"core": None},
    }
    config = {"datasets": {"rows": source}, "experiment": {"datasets": ["rows"], "systems": ["popular"], "seeds": [1]}}
    (project.folder / "rows.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = run(project, "results/rows/rows/raw/interactions.parquet", "--configfile", "rows.yaml")
    assert done.returncode == 0, done.stdout
    assert "WARNING: ingest rows: rejected 1 rows (wrong number of fields: 1), kept in results/rows/rows" in done.stdout
    assert "first: rows.csv: line 9: 2 fields, expected 3: 'u1,i2'" in done.stdout


@pytest.mark.usefixtures("first")
def test_the_full_text_is_one_option_away(project: Project) -> None:
    tables = "results/small/tables/bazaar.md"
    shown = run(project, "--configfile", "small.yaml", "--verbose", "--forcerun", "tables", "--until", "tables")
    plain = project.snakemake("-c2", "--configfile", "small.yaml", "--forcerun", "tables", "--until", "tables")
    for done in (shown, plain):
        assert done.returncode == 0, done.stdout
        assert "rule tables:" in done.stdout
        assert tables in done.stdout
        assert "Best on" not in done.stdout
    assert "The report: " in shown.stdout


def test_a_stage_that_fails(project: Project) -> None:
    (project.folder / "bad.csv").write_text("user,item\n1,2\n2,3\n3,4\n")
    config = {"datasets": {"own": {"source": "columns", "path": "bad.csv"}},
              "experiment": {"datasets": ["own"], "systems": ["popular"]}}  # fmt: skip
    (project.folder / "bad.yaml").write_text(yaml.safe_dump(config))
    done = run(project, "--configfile", "bad.yaml")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "FAILED: prepare own (exit status 1); its log: results/bad/logs/prepare/own.log" in lines
    *_, complete, begin, stage, reason, _, end = lines
    assert begin == end == "─" * len(end)
    assert stage == "prepare/own failed:"
    assert "cleaning leaves no interactions" in reason
    log = Path(complete.removeprefix("All that was said: "))
    assert "Error in rule prepare:" in log.read_text()
    assert "cleaning leaves no interactions" in log.read_text(), "what the job itself wrote is there, too"
    assert "Best" not in done.stdout


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("first_line", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", ["(SIGKILL: ", "want of memory"]),
        ("import nothing_of_the_kind", ["What jobs said last:", "No module named 'nothing_of_the_kind'"]),
    ],
)
def test_a_job_that_could_not_say_why(project: Project, first_line: str, said: list[str]) -> None:
    with project.edited("scripts/diagnose.py", lambda text: f"{first_line}\n{text}"):
        done = run(project, "--configfile", "small.yaml", "--forcerun", "diagnose")
    assert done.returncode == 1
    assert "FAILED: diagnose bazaar/latent (" in done.stdout
    for part in [*said, "All that was said: "]:
        assert part in done.stdout


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--configfile", "small.yaml", "results/nowhere.txt"], ["MissingRuleException", "results/nowhere.txt"]),
        (["--configfile", "wrong.yaml"], ["ERROR: this config cannot be run:", "did you mean 'epochs'?", "─" * 20]),
        (["--configfile", "small.yaml", "--nothing-of-the-kind"], ["unrecognized arguments", "--nothing-of-the-kind"]),
    ],
    ids=["missing input", "config", "option"],
)
def test_what_snakemake_refuses_is_told(project: Project, arguments: list[str], said: list[str]) -> None:
    (project.folder / "wrong.yaml").write_text(yaml.safe_dump({**SMALL, "training": {"epoch": 1}}))
    done = run(project, *arguments)
    assert done.returncode != 0
    for part in said:
        assert part in done.stdout
    assert "Best" not in done.stdout


@pytest.mark.usefixtures("first")
def test_a_locked_folder_is_told(project: Project) -> None:
    """Of a lock that another run holds, past the look that `./run` takes itself."""
    locks = project.folder / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/small/tables/bazaar.md\n")
    try:
        done = project.snakemake("-c2", "--logger=tessera", "--configfile", "small.yaml", "--forcerun", "tables")
    finally:
        (locks / "0.output.lock").unlink(missing_ok=True)
    assert done.returncode == 1
    assert "cannot be locked" in done.stdout


def test_a_terminal_shows_one_line_that_is_drawn_again(project: Project) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(project, "--configfile", "small.yaml", "--forcerun", "diagnose"), cwd=project.folder,
        env=environment() | {"COLUMNS": "120"}, stdout=theirs, stderr=theirs, stdin=theirs, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen, again = "", 0.0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if "running diagnose" in seen and "Terminating" not in seen and time.monotonic() >= again:
                # one that comes while Snakemake is inside asyncio may be lost: a person asks again, too
                again = time.monotonic() + 1.5
                os.killpg(process.pid, signal.SIGINT)
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part.decode(errors="replace")
        code = process.wait(timeout=60)
    os.close(ours)
    drawn = re.findall(r"\r\x1b\[2K(\[[█·]{20}\] [^\r\n]*)", seen)
    assert any("running diagnose bazaar/latent" in line for line in drawn), seen
    assert all(len(line) < 120 for line in drawn)
    assert code != 0
    assert "Terminating processes on user request" in seen
    assert "Best on" not in seen
    assert not seen.rstrip().endswith("left"), "the line is taken away"
