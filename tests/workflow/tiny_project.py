"""A copy of the repository in which tests drive Snakemake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import yaml

from tessera.artifacts.fork_server import FAMILIES, LANGUAGE, SERVERS, ForkServer

IMPORTED_BY_LIGHT_JOBS = ("scipy.stats", "polars", "altair", "vl_convert", "networkx", "pyarrow.dataset")
ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "workflow", "scripts", "src", "profiles", "slurm", "config", "tools")


def copy_repository(target: Path) -> None:
    """What the workflow needs of the repository."""
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_symlink():
            (target / part).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, target / part)


def snakemake_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE") and key != "PYTHONPATH"}
    return kept | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def trainers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The trainings below a Snakemake, forked or started."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.name() == "train.py" or "train.py" in " ".join(child.cmdline())]


@cache
def _jobs() -> ForkServer:
    """What forks the jobs of all runs of this process, of every kind."""
    return ForkServer((*LANGUAGE, *IMPORTED_BY_LIGHT_JOBS, "snakemake.script"))


@cache
def _server() -> subprocess.Popen[str]:
    """One for all runs of this process that are forked; it ends with it."""
    server = str(Path(__file__).with_name("snakemake_server.py"))
    return subprocess.Popen(
        [sys.executable, server], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
        pass_fds=[_jobs().requests().fileno()],
    )  # fmt: skip


def forked(folder: Path, arguments: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Snakemake forked from a process that has imported it: half of a dry run is imports. Its jobs likewise."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    servers = ",".join(f"{family}={_jobs().requests().fileno()}" for family in (*FAMILIES, "light"))
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as output:
        asked = {"arguments": arguments, "folder": str(folder), "environment": environment() | {SERVERS: servers},
                 "output": output.name, "timeout": int(timeout)}  # fmt: skip
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(snakemake_command(*arguments), code, output.read())


@dataclass
class Project:
    """A copy of the repository in which Snakemake runs."""

    folder: Path
    name: str = "tiny"
    """Of the experiment of every config that is written."""
    forks: bool = True
    """Whether Snakemake and its jobs are forked from processes of the tests; else started as a person does."""
    owned: bool = False
    """Whether folders of experiments keep their owners; else one experiment may have several config files."""

    def snakemake(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        for owner in [] if self.owned else self.folder.glob("results/*/experiment.json"):
            owner.unlink()
        if self.forks or "-n" in arguments:
            return forked(self.folder, arguments, timeout)
        return subprocess.run(
            ["timeout", "-s", "KILL", str(timeout), *snakemake_command(*arguments)],
            cwd=self.folder, env=environment(), text=True, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def config(self, **changes: Any) -> dict[str, Any]:
        """The tiny config with keys changed; a double underscore goes one level down."""
        config: dict[str, Any] = yaml.safe_load((self.folder / "config/tiny.yaml").read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            part = config
            for key in outer:
                part = part.setdefault(key, {})
            part[last] = value
        return config

    def write_config(self, config: Any, name: str = "changed.yaml") -> str:
        if isinstance(config, dict) and isinstance(config.get("experiment"), dict):
            config = {**config, "experiment": {"name": self.name, **config["experiment"]}}
        (self.folder / name).write_text(yaml.safe_dump(config, sort_keys=False))
        return name

    def stale(self, config: str = "config/tiny.yaml") -> dict[str, int]:
        """Rules that a dry run would run, and how many jobs of each."""
        done = self.snakemake("-n", "--configfile", config)
        assert done.returncode == 0, done.stdout
        if "Nothing to be done" in done.stdout:
            return {}
        table = done.stdout.split("Job stats:")[1].split("total")[0]
        counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        counts.pop("all")
        return counts

    @contextmanager
    def edited(self, path: str, edit: Callable[[str], str]) -> Iterator[None]:
        """A file of the project changed, and put back with its times."""
        file = self.folder / path
        before, status = file.read_text(), file.stat()
        after = edit(before)
        assert after != before
        file.write_text(after)
        try:
            yield
        finally:
            file.write_text(before)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
