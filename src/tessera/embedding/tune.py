"""Training an embedder, in one process or several; whichever recipe it is of."""

from __future__ import annotations

from pathlib import Path

import torch

from tessera.embedding.embedder import save_embedder
from tessera.embedding.recipe import Recipe, TrainedRecipe
from tessera.embedding.task import Places, Task
from tessera.settings.training import Steps
from tessera.training.engine import Engine
from tessera.training.history import write_history
from tessera.training.launch import one_of_processes, run_processes
from tessera.training.machine import Machine


def tune(task: Task, inputs: Places, output: Path, state: Path, code: str) -> None:
    """Train the embedder of a task: `output` (model.safetensors), model.json and history.jsonl beside it."""
    folder = task.state(inputs, state, code)
    machine = Machine(_steps(task))  # first: it chooses the process's own GPU, on which the model is then loaded
    train(task.recipe(inputs, folder), output, folder, machine)


def train(recipe: Recipe, output: Path, state: Path, machine: Machine) -> None:
    """Run a recipe's program and write what it trained.

    Args:
        recipe: with its model and its files.
        output: path of the weights.
        state: folder of the resumable state; it is removed at the end.
        machine: device and processes.
    Raises:
        ValueError: the recipe trains nothing, there is nothing to learn from, or the loss is no longer a number.
    """
    settings = recipe.settings
    if not isinstance(recipe, TrainedRecipe):
        raise ValueError(f"recipe {settings.recipe}: its code {type(recipe).__name__} is no TrainedRecipe")
    model = recipe.begin(machine)
    steps = settings.training
    engine = Engine(model, recipe.program(), steps, steps.seed, state, machine, settings.recipe)
    history = engine.fit()
    embedder = recipe.trained(history)
    if machine.first:
        write_history(output.with_name("history.jsonl"), history)
        save_embedder(output, embedder)
        engine.clear()


def _steps(task: Task) -> Steps:
    steps: Steps = task.table.training  # type: ignore[attr-defined]
    return steps


def launch(task: Task, inputs: Places, output: Path, state: Path, code: str, logfile: Path | None) -> None:
    """`tune` in this process, or in as many as `training.processes` says (one a GPU)."""
    if _steps(task).processes == 1:
        tune(task, inputs, output, state, code)
        return
    job = {
        "task": task.model_dump(mode="json"), "places": inputs.model_dump(), "output": str(output),
        "state": str(state), "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    run_processes("tessera.embedding.tune", job, _steps(task).processes)


def main() -> None:
    """One of several processes, started by `launch`."""
    with one_of_processes() as job:
        task = Task.model_validate(job["task"])
        tune(task, Places.model_validate(job["places"]), Path(job["output"]), Path(job["state"]), job["code"])


if __name__ == "__main__":
    main()
