"""A config that cannot run is refused before any job, in one message, with exit code 1."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tiny_project import ROOT, Project, copy_repository, environment

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
             "tables": {}, "semantic_ids": {}, "systems": {}, "experiment__systems": ["popular"], "significance": {},
             "evaluation": {}},
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
    rule, stage, reason, where, end = done.stdout.splitlines()[-5:]
    assert rule == end == "─" * len(rule), "the good line stands last and framed"
    assert stage == "prepare/own failed:"
    assert "cleaning leaves no interactions" in reason
    assert "results/own/logs/prepare/own.log" in where


BAD_FILES = {
    "twice.yaml": ("datasets: {a: {source: bazaar}}\nexperiment: {datasets: [a]}\n" * 2, "lines 1 and 3", "'datasets'"),
    "inside.yaml": ("datasets:\n  a: {source: bazaar, users: 50, users: 60}\n", "line 2", "'datasets.a.users'"),
    "twice.json": ('{"datasets": {},\n\t"task": "ctr",\n\t"task": "ctr"}', "lines 2 and 3", "'task'"),
    "syntax.yaml": ("datasets: [a\nexperiment: {}\n", "line 2", "is no YAML"),
    "tabs.yaml": ("datasets:\n\ta: 1\n", "line 2", "not with tabs"),
    "empty.yaml": ("", "empty.yaml", "holds no keys"),
    "list.yaml": ("- a\n", "line 1", "expected keys"),
    "date.yaml": ("a: 1\nb: 2014-13-45\n", "line 2", "month must be in 1..12"),
    "self.yaml": ("a: &a [*a]\n", "line 1", "holds itself"),
    "bomb.yaml": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi")),
        "line 6", "more than 200,000 values",
    ),
    "missing.yaml": (None, "missing.yaml", "no such file"),
    "folder.yaml": ((), "folder.yaml", "is a folder"),
    "bytes.yaml": (b"a: 1\nb: \xff\n", "line 2", "is not UTF-8"),
}  # fmt: skip


@pytest.fixture(scope="module")
def bad_files(project: Project) -> None:
    for name, (content, *_) in BAD_FILES.items():
        path = project.folder / name
        if content == ():
            path.mkdir()
        elif content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def run_tool(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`./run` without the making of the environment."""
    command = [sys.executable, str(project.folder / "tools/run.py"), *arguments]
    return subprocess.run(
        command, cwd=project.folder, env=environment(), text=True, check=False, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_config_is_told_with_its_line(project: Project, name: str) -> None:
    done = run_tool(project, "--configfile", name, "-n")
    assert done.returncode == 1
    begin, title, *said, end = done.stdout.splitlines()
    assert begin == end == "─" * len(end)
    assert title == "ERROR: this config cannot be run:"
    for part in [name, *BAD_FILES[name][1:]]:
        assert part in said[0]
    assert "Traceback" not in done.stdout
    assert len(done.stdout) < 2000


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize("name", ["twice.yaml", "inside.yaml", "twice.json"])
def test_snakemake_itself_refuses_a_key_that_stands_twice(project: Project, name: str) -> None:
    done = project.snakemake("-n", "--configfile", "config/tiny.yaml", name)
    assert done.returncode == 1
    for part in [name, *BAD_FILES[name][1:]]:
        assert part in done.stdout
    assert "Building DAG" not in done.stdout


def test_faults_of_keys(project: Project, data_root: Callable[..., Path]) -> None:
    for name, lines in (
        ("c-dupkey.yaml", ["line 3, twice"]),
        ("c-dupsection.yaml", ["lines 5 and 6", "lines 2 and 7"]),
    ):
        done = project.snakemake("-n", "--configfile", str(data_root("faults", name)))
        assert done.returncode == 1
        for part in lines:
            assert part in done.stdout


def test_several_configs_and_targets_in_any_order(project: Project) -> None:
    (project.folder / "over.yaml").write_text("experiment: {seeds: [4]}\n")
    orders = [
        ["--configfile", "config/tiny.yaml", "over.yaml", "prepare", "-n"],
        ["prepare", "--configfile", "config/tiny.yaml", "over.yaml", "-n"],
        ["-n", "prepare", "--configfile=config/tiny.yaml", "--configfile", "over.yaml"],
    ]
    target = "results/over/bazaar/data/stats.json"
    for order in orders:
        done = run_tool(project, *(target if part == "prepare" else part for part in order))
        assert done.returncode == 0, done.stdout
        assert "prepare" in done.stdout
        assert "train" not in done.stdout
    done = run_tool(project, "--configfile", "config/tiny.yaml", "over.yaml", "-n")
    assert "/popular/seed-0/" in done.stdout
    assert "seed-4/" in done.stdout


def test_what_the_command_line_gives_is_read_as_a_config_is(project: Project) -> None:
    """Numbers arrive as numbers, nested ones too, texts in quotes as texts; jobs of a run are told the same."""
    (project.folder / "few.yaml").write_text(
        "datasets: {bazaar: {source: bazaar, users: 120, items: 60}}\n"
        "experiment: {datasets: [bazaar], systems: [popular, id]}\n"
    )
    given = ["training={epochs: 3, learning_rate: 1.0e-2}", "report={title: '7'}", "experiment={seeds: [5]}"]
    for run in (lambda *a: run_tool(project, *a), project.snakemake):
        done = run("-n", "--configfile", "few.yaml", "--config", *given)
        assert done.returncode == 0, done.stdout
        assert "seed-5" in done.stdout
        assert "seed-1" not in done.stdout
    model = "results/few/bazaar/runs/id/sasrec/seed-5/model.json"
    done = project.snakemake(model, "-c2", "--configfile", "few.yaml", "--config", *given)
    assert done.returncode == 0, done.stdout
    training = json.loads((project.folder / model).read_text())["run"]["training"]
    assert (training["epochs"], training["learning_rate"]) == (3, 0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("training={epochs: '3'}", ["training.epochs: ", "expected a whole number (got '3')"]),
        ("training={epoch: 3}", ["did you mean 'epochs'?"]),
        ("training={epochs: 3, epochs: 4}", ["--config training", "'epochs' stands twice"]),
        ("training={epochs: [3}", ["--config training", "is no YAML"]),
    ],
)
def test_what_the_command_line_gives_is_refused_as_a_config_is(project: Project, given: str, said: list[str]) -> None:
    done = project.snakemake("-n", "--configfile", "config/tiny.yaml", "--config", given)
    assert done.returncode == 1
    for part in said:
        assert part in done.stdout
    assert "Traceback" not in done.stdout


def test_texts_with_braces_are_texts(project: Project) -> None:
    config = {
        "datasets": {"own": {"source": "bazaar", "prompt": {"domain": "a {thing}"}}},
        "captions": {"said": {"model": "small", "instruction": "say {item}"}},
        "tables": {"text": {"recipe": "text", "model": "small", "captions": ["said"], "instruction": "{dataset} {x}"}},
        "systems": {"text": {"items": {"table": "text"}}},
        "report": {"title": "{title}"},
        "experiment": {"datasets": ["own"], "systems": ["text"], "seeds": [1]},
    }
    done = project.snakemake("-n", "--configfile", project.write_config(config, "braces.yaml"))
    assert done.returncode == 0, done.stdout
    config |= {"task": "ctr", "ctr": {"models": {"avg": {"model": "avg"}}, "samples": {"source": "positives"}}}
    config["ctr"]["samples"]["category"] = "{category}"
    done = project.snakemake("-n", "--configfile", project.write_config(config, "braces.yaml"))
    assert done.returncode == 0, done.stdout


def test_params_are_functions() -> None:
    """Snakemake fills braces of other texts in params, as if they were wildcards."""
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for line in path.read_text().splitlines():
            match = re.fullmatch(r" {8}(cfg|graph)=(.*),", line)
            if match:
                assert re.match(r"lambda \w+: |settings\(\"\w+\"\)$", match[2]), f"{path.name}: {line.strip()}"


def test_a_permanent_error_is_not_tried_again(project: Project) -> None:
    """What a stage with retries cannot read stays unreadable: later attempts end at once, in silence."""
    model = "results/tiny/bazaar/runs/id/sasrec/seed-1/model.safetensors"
    work = "    Path('worked').open('a').write('x')\n    raise ValueError('codes.json: line 3: no code')\n"
    with project.edited("scripts/train.py", lambda text: text[: text.index("    run = Run")] + work):
        done = project.snakemake(model, "--cores", "1", "--configfile", "config/tiny.yaml")
    assert done.returncode == 1
    assert (project.folder / "worked").read_text() == "x"
    assert done.stdout.count("ERROR: codes.json") == 1
    assert "codes.json: line 3: no code" in done.stdout.splitlines()[-3]


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
    assert done.stdout.count("ERROR: log.csv") == 1, "told once, and again at the very end"
    assert "not tried again" in (project.folder / "results" / "half" / "logs" / "ingest" / "half.log").read_text()
    raw = project.folder / "results" / "half" / "half" / "raw"
    kept = pq.read_table(raw / "refused.parquet").to_pylist()
    assert [row["text"] for row in kept] == ["alone"] * 5
    assert not (raw / "rejected.parquet").exists()
