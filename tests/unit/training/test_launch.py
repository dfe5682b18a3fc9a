"""Several processes: an end that is asked for reaches the workers, a failure is told."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tessera
from tessera.artifacts.logs import Terminated
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
