"""A clone runs wherever it stands: in folders with blanks and apostrophes, and after it was moved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_project import copy_repository, environment

pytestmark = pytest.mark.workflow

TARGET = "results/tiny/bazaar/data/stats.json"
SNAKEMAKE = "#!{python}\n# -*- coding: utf-8 -*-\nimport sys\nfrom snakemake.cli import main\nsys.exit(main())\n"


def clone(folder: Path) -> None:
    """The repository with an environment of its own, which shares the packages of this one."""
    copy_repository(folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    packages = next((folder / ".venv/lib").glob("python*/site-packages"))
    (packages / "a_own.pth").write_text(f"{folder}/src\n")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "b_shared.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
    program = folder / ".venv/bin/snakemake"
    program.write_text(SNAKEMAKE.format(python=folder / ".venv/bin/python"))
    program.chmod(0o755)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = environment() | {
        "PATH": f"{folder}/.venv/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(folder / "src"),
    }
    return subprocess.run(
        [str(folder / ".venv/bin" / command[0]), *command[1:]], cwd=folder, env=kept, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["my clone", "it's"])
def test_a_clone_runs_in_any_folder_and_after_a_move(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    clone(folder)
    done = run(folder, "python", "tools/run.py", "--configfile", "config/tiny.yaml", TARGET, "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert (folder / TARGET).is_file()

    moved = tmp_path / f"{name} moved"
    folder.rename(moved)
    done = run(moved, "python", "tools/moved.py")
    assert done.returncode == 0, done.stdout
    assert f"was {folder} before" in done.stdout
    # by the program, whose first line held the path of the old folder
    done = run(moved, "snakemake", TARGET, "-n", "--configfile", "config/tiny.yaml")
    assert done.returncode == 0, done.stdout
    told = run(moved, "python", "-c", "import sys, tessera; print(tessera.__file__); print(*sys.path)")
    assert str(folder) + "/" not in told.stdout
    assert run(moved, "python", "tools/moved.py").stdout == "", "once is enough"
