"""Training an embedder, in one process or several; whichever recipe it is of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tessera.artifacts.logs import stage
from tessera.embedding.task import Places, Task
from tessera.settings.training import Steps
from tessera.training.launch import run_processes
from tessera.training.machine import Machine


def tune(task: Task, places: Places, output: Path, state: Path, code: str) -> None:
    """Train the embedder of a task: `output` (model.safetensors), model.json and history.jsonl beside it."""
    folder = task.state(places, state, code)
    machine = Machine(_steps(task))
    task.recipe(places, folder).train(Path(places.data), output, folder, machine)


def _steps(task: Task) -> Steps:
    steps: Steps = task.table.training  # type: ignore[attr-defined]
    return steps


def launch(task: Task, places: Places, output: Path, state: Path, code: str, logfile: Path | None) -> None:
    """`tune` in this process, or in as many as `training.processes` says (one a GPU)."""
    if _steps(task).processes == 1:
        tune(task, places, output, state, code)
        return
    job = {
        "task": task.model_dump(mode="json"), "places": places.model_dump(), "output": str(output),
        "state": str(state), "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    run_processes("tessera.embedding.tune", job, _steps(task).processes)


def main() -> None:
    """One of several processes, started by `launch`."""
    job = json.loads(sys.argv[1])
    with stage(job["log"], job["threads"], 0):
        task = Task.model_validate(job["task"])
        tune(task, Places.model_validate(job["places"]), Path(job["output"]), Path(job["state"]), job["code"])


if __name__ == "__main__":
    main()
