"""Several processes: an end that is asked for reaches the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tessera.artifacts.logs import Terminated
from tessera.recommenders import train
from tessera.settings.config import BackboneSystem, Run
from tessera.settings.recommenders import Training


def test_the_launcher_is_asked_to_end_and_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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

    monkeypatch.setattr("tessera.recommenders.train.subprocess.Popen", Launched)
    run = Run(system="id", recommender="sasrec", seed=1, method=BackboneSystem(), training=Training(processes=2))
    with pytest.raises(Terminated):
        train.launch(run, tmp_path, None, tmp_path / "model.safetensors", tmp_path, "", None)
    assert told == ["wait", "terminate", "wait"]
