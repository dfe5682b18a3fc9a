"""The workflow as a folder of one's own: what of it the package carries, and how it is copied out."""

from __future__ import annotations

import shutil
from pathlib import Path

PARTS = ("Snakefile", "run", "workflow", "scripts", "profiles", "config", "tools", ".gitignore")
"""What the workflow is made of; `setup.py` puts them into the package as `tessera/project`."""
_LEFT_OUT = ("__pycache__", "*.pyc")
_LINK = ("slurm", "profiles/slurm")
"""A name by which `snakemake --profile slurm` finds the profile."""


def source() -> Path:
    """Where the workflow lies: inside the installed package, or at the root of a source tree.

    Raises:
        FileNotFoundError: neither holds it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "project", package.parents[1]):
        if (folder / "Snakefile").is_file() and (folder / "workflow").is_dir():
            return folder
    raise FileNotFoundError(f"{package / 'project'}: this installation carries no workflow; install tessera-rec anew")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which the workflow cannot run: Snakemake fills in what stands in braces in its path.

    Raises:
        OSError: so it is.
    """
    if {"{", "}"} & set(str(folder)):
        raise OSError(f"{folder}: the workflow cannot lie below a folder with {{ or }} in its name; rename or move it")


def copy_parts(origin: Path, target: Path) -> None:
    """Copy what the workflow is made of."""
    for name in PARTS:
        part = origin / name
        if part.is_dir():
            shutil.copytree(part, target / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(part, target / name)


def make_project(folder: Path) -> None:
    """Copy the workflow into a new folder; nothing is written where that cannot be done as a whole.

    Raises:
        FileExistsError: the folder holds something.
        FileNotFoundError: the installation carries no workflow.
        NotADirectoryError: a file is in the way.
        OSError: the workflow could not run there.
    """
    check_folder(folder.resolve())
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty; name a new folder, or an empty one")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is a file; name a new folder")
    origin, there = source(), folder.is_dir()
    made = folder.resolve()
    half = made / ".half" if there else made.with_name(f".{made.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        copy_parts(origin, half)
        (half / "run").chmod(0o755)
        (half / _LINK[0]).symlink_to(_LINK[1])
        if there:  # it may be the working directory, which must not be replaced
            for part in list(half.iterdir()):
                part.rename(made / part.name)
        else:
            half.rename(made)
    finally:
        shutil.rmtree(half, ignore_errors=True)
