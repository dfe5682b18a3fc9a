"""Training an embedder, in one process or several; the recipe's module is loaded by name."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import torch

from tessera.artifacts.logs import stage
from tessera.embedding.task import RECIPES, Places, Task
from tessera.language.models import fingerprint, load_model
from tessera.settings.embedding import TRAINED_TABLES, CRRLTable
from tessera.training.launch import run_processes
from tessera.training.machine import Machine, state_identity


def tune(task: Task, places: Places, output: Path, state: Path, code: str) -> None:
    """Train the embedder of a task: `output` (model.safetensors), model.json and history.jsonl beside it."""
    table = task.table
    assert isinstance(table, TRAINED_TABLES)
    folder = state / state_identity(task.canonical(), code, *places.digests(), *fingerprint(task.model))
    machine = Machine(table.training)
    model = load_model(task.model, places.model_folder)
    module = import_module(RECIPES[table.recipe])
    catalogue, data = Path(places.catalogue), Path(places.data)
    if isinstance(table, CRRLTable):
        embedder = Path(places.embedder) if places.embedder else None
        module.train_crrl(
            table,
            task.start,
            task.prompt,
            model,
            catalogue,
            places.caption_files,
            data,
            embedder,
            output,
            folder,
            machine,
        )
    else:
        module.train_contrastive(
            table, task.prompt, model, catalogue, places.caption_files, data, output, folder, machine
        )  # fmt: skip


def launch(task: Task, places: Places, output: Path, state: Path, code: str, logfile: Path | None) -> None:
    """`tune` in this process, or in as many as `training.processes` says (one a GPU)."""
    assert isinstance(task.table, TRAINED_TABLES)
    if task.table.training.processes == 1:
        tune(task, places, output, state, code)
        return
    job = {
        "task": task.model_dump(mode="json"), "places": places.model_dump(), "output": str(output),
        "state": str(state), "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    run_processes("tessera.embedding.tune", job, task.table.training.processes)


def main() -> None:
    """One of several processes, started by `launch`."""
    job = json.loads(sys.argv[1])
    with stage(job["log"], job["threads"], 0):
        task = Task.model_validate(job["task"])
        tune(task, Places.model_validate(job["places"]), Path(job["output"]), Path(job["state"]), job["code"])


if __name__ == "__main__":
    main()
