"""Several processes: an end that is asked for reaches the workers, a failure is told."""

from __future__ import annotations

from typing import Any

import pytest

from tessera.artifacts.logs import Terminated
from tessera.training.launch import run_processes


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
