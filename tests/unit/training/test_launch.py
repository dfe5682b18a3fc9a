"""Several processes: an end that is asked for reaches the workers, a failure is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tessera
from tessera.artifacts.logs import Terminated
from tessera.training.errors import TrainingError
from tessera.training.launch import run_processes

MEMBER = """
import atexit, os, sys
from torch import distributed
from torch.distributed.distributed_c10d import is_initialized
from accelerate import Accelerator
import torch
from tessera.training.launch import one_of_processes

# a process that still is in its group here may abort while the interpreter ends, though its work is done
atexit.register(lambda: os._exit(3) if is_initialized() else None)
with one_of_processes() as job:
    machine = Accelerator(cpu=True)
    total = machine.reduce(torch.ones(4), reduction="sum")
    if machine.is_main_process:
        open(job["output"], "w").write(str(int(total.sum())))
"""


def test_the_launcher_is_asked_to_end_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Launched:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def wait(self) -> int:
            told.append("wait")
            if len(told) == 1:
                raise Terminated
            return 0

        def terminate(self) -> None:
            told.append("terminate")

    monkeypatch.setattr("tessera.training.launch.subprocess.Popen", Launched)
    with pytest.raises(Terminated):
        run_processes("tessera.recommenders.train", {}, 2)
    assert told == ["wait", "terminate", "wait"]


def test_a_failed_process_is_told() -> None:
    with pytest.raises(ChildProcessError, match="training in 2 processes failed with exit code 1"):
        run_processes("tessera.recommenders.train", {"log": None}, 2)


def run_members(folder: Path, monkeypatch: pytest.MonkeyPatch, **job: object) -> None:
    (folder / "member_of_two.py").write_text(MEMBER)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(tessera.__file__).parents[1]}")
    run_processes("member_of_two", {"log": None, "threads": 1, **job}, 2)


def test_processes_leave_their_group_before_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_members(tmp_path, monkeypatch, output=str(tmp_path / "total"))
    assert (tmp_path / "total").read_text() == "8"


WAITING = """
import os, sys, time
from tessera.training.launch import one_of_processes

with one_of_processes() as job:
    open(os.path.join(job["folder"], os.environ["RANK"]), "w").write(str(os.getpid()))
    time.sleep(60)
"""
STARTED = "import sys; from tessera.training.launch import run_processes as run; run('waiting', {job!r}, 2)"


def test_nothing_goes_on_when_the_stage_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only asked to end: killed, together with all that is in its group, as a scheduler does."""
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(tessera.__file__).parents[1]}")
    job = {"log": None, "threads": 1, "folder": str(tmp_path)}
    stage = subprocess.Popen([sys.executable, "-c", STARTED.format(job=job)], start_new_session=True)
    ranks = [tmp_path / "0", tmp_path / "1"]
    assert until(lambda: all(rank.is_file() and rank.read_text() for rank in ranks), 60)
    workers = [int(rank.read_text()) for rank in ranks]
    assert all(map(lives, workers))
    os.killpg(stage.pid, signal.SIGKILL)
    stage.wait()
    assert until(lambda: not any(map(lives, workers)), 20)


def lives(process: int) -> bool:
    """Whether it is there, and no zombie that nobody waits for."""
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(said: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes so within so many seconds."""
    ends = time.monotonic() + seconds
    while not (now := said()) and time.monotonic() < ends:
        time.sleep(0.1)
    return now


REFUSED = """
from tessera.training.errors import TrainingError
from tessera.training.launch import one_of_processes

with one_of_processes() as job:
    raise TrainingError("the loss became nan at epoch 3")
"""


def test_why_training_cannot_go_on_is_told_by_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refused.py").write_text(REFUSED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(tessera.__file__).parents[1]}")
    with pytest.raises(TrainingError, match=r"^the loss became nan at epoch 3$"):
        run_processes("refused", {"log": None, "threads": 1}, 2)


def test_every_stage_in_several_processes_does_so() -> None:
    sources = Path(tessera.__file__).parent
    started = {
        module
        for path in sources.rglob("*.py")
        for module in re.findall(r'run_processes\(\s*"([\w.]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(started) == 4
    for module in started:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert "with one_of_processes() as job:" in Path(spec.origin).read_text(encoding="utf-8"), module


def test_a_job_may_be_longer_than_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux takes 128 KiB of one, which an ensemble of a hundred members passes."""
    run_members(tmp_path, monkeypatch, output=str(tmp_path / "total"), members=["x" * 1000] * 200)
    assert (tmp_path / "total").read_text() == "8"
