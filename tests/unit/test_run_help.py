"""`./run --help` says what there is before anything is installed; and `./run` says what nobody else can."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
@pytest.mark.parametrize("arguments", [["--help"], ["--configfile", "config/tiny.yaml", "-h"]])
def test_help_installs_nothing(tmp_path: Path, shell: str, arguments: list[str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    shutil.copy2(ROOT / "run", tmp_path / "run")
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    before = sorted(tmp_path.rglob("*"))
    # an empty PATH but for what the script itself needs: no Python could be called
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "cat").symlink_to(shutil.which("cat") or "/bin/cat")
    done = subprocess.run(
        [program, str(tmp_path / "run"), *arguments],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: ./run ")
    for said in ("--configfile", "--verbose", "--profile slurm", "POSIX shell", "Python 3.11"):
        assert said in done.stdout
    assert [path for path in sorted(tmp_path.rglob("*")) if "bin" not in path.parts] == before
    for page in re.findall(r"(?:docs|config)/[\w.-]+|README\.md", done.stdout):
        assert (ROOT / page).is_file(), page


def test_every_option_that_help_shows_is_one() -> None:
    shown = subprocess.run(["sh", str(ROOT / "run"), "--help"], capture_output=True, text=True, check=True).stdout
    from snakemake.cli import get_argument_parser

    known = {name for action in get_argument_parser()._actions for name in action.option_strings}
    assert set(re.findall(r"(?<!\w)--[a-z-]+", shown)) - {"--help"} <= known


@pytest.mark.parametrize(
    ("number", "said"),
    [(9, "(SIGKILL: the system or a person ended it, often for want of memory)"), (11, "(SIGSEGV)"), (2, None)],
)
def test_an_end_of_snakemake_that_it_cannot_tell_is_told(tmp_path: Path, number: int, said: str | None) -> None:
    (tmp_path / "snakemake").mkdir()
    (tmp_path / "snakemake/__init__.py").write_text("")
    ending = f"import os, signal\nsignal.signal(2, signal.SIG_DFL)\nos.kill(os.getpid(), {number})\n"
    (tmp_path / "snakemake/__main__.py").write_text(ending)
    (tmp_path / "my.yaml").write_text("experiment: {name: mine}\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/run.py"), "--configfile", "my.yaml"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + number
    assert done.stderr.strip() == (
        f"ERROR: Snakemake did not end by itself {said}; the same command goes on" if said else ""
    )


def test_an_option_without_its_file_does_not_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the shell was empty: the demo is not what was meant."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    run = importlib.import_module("run")
    assert run.sort(["--configfile"]) == (["--configfile"], [])
    assert run.sort(["--configfile", "-n"]) == (["--configfile", "-n"], [])
    assert run.sort(["--configfile", "a.yaml", "-n"]) == (["-n", "--configfile", "a.yaml"], ["a.yaml"])


def test_the_page_will_tell_the_command_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    run = importlib.import_module("run")
    assert run.environment(["--configfile", "my own.yaml"])["TESSERA_COMMAND"] == "./run --configfile 'my own.yaml'"


def test_the_folder_of_the_run_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    run = importlib.import_module("run")
    for given in (["-d", "there"], ["--directory", "there"], ["--directory=there"], ["-dthere"], ["--dir", "there"]):
        assert run.directory(["-n", *given]) == Path("there")
        assert not any(map(run._OWN_TEXT.fullmatch, given)), "it does not choose what is shown"
    assert run.directory(["-n"]) == Path()
    assert run.directory(["-nd", "there", "--cores", "2"]) == Path("there")
    assert run.directory(["-d", "here", "-d", "there"]) == Path("there")
    assert run.directory(["-d"]) == Path(), "Snakemake says what is wrong"
    assert all(map(run._OWN_TEXT.fullmatch, ["-D", "-S", "-t", "--dag", "-q"]))


def test_what_snakemake_would_tell_of_rules_and_identifiers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.chdir(tmp_path)
    run = importlib.import_module("run")
    Path("my.yaml").write_text("experiment: {name: mine}\n")
    said = "my.yaml is a config, and no file to be made; say ./run --configfile my.yaml"
    for given in (["my.yaml"], ["-n", "my.yaml"], ["--cores", "4", "my.yaml"], ["--cores=4", "my.yaml"]):
        assert run.misplaced(given) == said
    for given in (
        ["--configfile", "my.yaml"],
        ["-n", "--configfile", "my.yaml", "my.yaml"],
        ["--configfile=other.yaml", "my.yaml"],
        ["--profile", "my.yaml"],
        ["other.yaml"],
        ["results/x/shop/data/stats.json"],
        ["--config", "training={epochs: 3}", "experiment={name: a.b}"],
    ):
        assert run.misplaced(given) is None
    dotted = run.misplaced(["--config", "training.epochs=3"])
    assert dotted == "--config training.epochs: a section takes its keys as YAML: --config training='{epochs: 3}'"
    assert run.misplaced(["-C", "a.b.c=x y"]).endswith("--config a='{b: {c: x y}}'")
    assert "expected a section of the config" in run.misplaced(["--config", "my-key=3"])
    assert run.main(["my.yaml"]) == 1
    assert capsys.readouterr().err == f"ERROR: {said}\n"
