"""The workflow out of an installed package, as a person has it who never saw the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_project import ROOT, environment

from tessera.project import PARTS, copy_parts, make_project, source

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the repository; without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", ".snakemake", "results", "state", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, copy],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and "No module named 'setuptools" in done.stderr + done.stdout:
        pytest.skip("no setuptools here, and a build without the network needs it")
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_carries_the_workflow(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in PARTS:
        file = ROOT / part
        files = [path for path in file.rglob("*") if path.is_file()] if file.is_dir() else [file]
        for path in files:
            if "__pycache__" not in path.parts:
                assert f"tessera/project/{path.relative_to(ROOT).as_posix()}" in names
    assert "snakemake_logger_plugin_tessera/__init__.py" in names
    assert "tessera/watch/rates.json" in names


def test_init_and_run_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin/python"
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run(  # without PYTHONPATH, by which pip would find the repository and call the wheel installed
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True, env=environment(),
    )  # fmt: skip
    import snakemake

    shared = Path(snakemake.__file__).parents[1]
    Path(where, "zz-shared.pth").write_text(f"{shared}\n")
    clean = environment() | {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def call(*command: str | Path, cwd: Path) -> str:
        done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr

    assert str(venv) in call(python, "-c", "import tessera; print(tessera.__file__)", cwd=tmp_path)
    assert "cd d && ./run" in call(venv / "bin/tessera", "init", "d", cwd=tmp_path)
    made = tmp_path / "d"
    assert os.access(made / "run", os.X_OK)
    assert (made / "slurm/config.yaml").is_file()
    said = call(python, "-m", "snakemake", "-n", "--configfile", "config/tiny.yaml", cwd=made)
    assert "rule train:" in said
    assert "jobs, about" in call(venv / "bin/tessera", "plan", "config/tiny.yaml", cwd=made)
    call("./run", "--configfile", "config/tiny.yaml", "results/tiny/bazaar/data/stats.json", cwd=made)
    assert (made / "results/tiny/bazaar/data/stats.json").is_file()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty"):
        make_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(NotADirectoryError, match="is a file"):
        make_project(tmp_path / "mine.txt")


def test_an_empty_folder_and_the_working_directory_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_project(Path())
    assert {path.name for path in tmp_path.iterdir()} == {*PARTS, "slurm"}


def test_nothing_is_left_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera import project

    monkeypatch.setattr(project, "PARTS", ("Snakefile", "nothing of the kind"))
    with pytest.raises(FileNotFoundError):
        make_project(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_braces_is_refused_in_a_line(tmp_path: Path) -> None:
    """Snakemake takes them for variables, and ended in a traceback."""
    folder = tmp_path / "my {shop}"
    told = f"{folder}: the workflow cannot lie below a folder with {{ or }} in its name; rename or move it"
    with pytest.raises(OSError, match=re.escape(told)):
        make_project(folder)
    assert not list(tmp_path.iterdir())
    copy_parts(source(), folder)  # as a clone, or a folder that was moved
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--configfile", "config/tiny.yaml"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode
    assert told in done.stderr
    assert "Traceback" not in done.stderr
