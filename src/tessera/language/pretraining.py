"""The stage that makes a model on the spot, in one process or several."""

from __future__ import annotations

from pathlib import Path

import torch

from tessera.artifacts.files import file_digest
from tessera.language.pretrain import pretrain
from tessera.settings.base import Settings
from tessera.settings.language import BuiltModel, ItemPrompt
from tessera.training.launch import one_of_processes, run_processes
from tessera.training.machine import Machine, state_identity


class Pretraining(Settings):
    """What makes a model on the spot for one dataset."""

    model: BuiltModel
    prompt: ItemPrompt
    source: str
    """Kind of the dataset's source: the demo world lends its pencil."""


def run_pretraining(
    task: Pretraining, data: Path, output: Path, state: Path, code: str, pictures: Path | None = None
) -> None:
    """Write the folder of a model that was made for the dataset in `data`; `pictures` is what is told of its pictures,
    where they are read."""
    files = [data / "interactions.parquet", data / "items.parquet", *([pictures] if pictures else [])]
    digests = [file_digest(file) for file in files]
    folder = state / state_identity(task.canonical(), code, *digests)
    pretrain(task.model, task.prompt, task.source, data, output, folder, Machine(task.model.training))


def launch_pretraining(
    task: Pretraining,
    data: Path,
    output: Path,
    state: Path,
    code: str,
    logfile: Path | None,
    pictures: Path | None = None,
) -> None:
    """`run_pretraining` in this process, or in as many as `training.processes` says (one a GPU)."""
    if task.model.training.processes == 1:
        run_pretraining(task, data, output, state, code, pictures)
        return
    job = {
        "task": task.model_dump(mode="json"), "data": str(data), "output": str(output), "state": str(state),
        "code": code, "log": str(logfile) if logfile else None,
        "threads": torch.get_num_threads(), "pictures": str(pictures) if pictures else None,
    }  # fmt: skip
    run_processes("tessera.language.pretraining", job, task.model.training.processes)


def main() -> None:
    """One of several processes, started by `launch_pretraining`."""
    with one_of_processes() as job:
        task = Pretraining.model_validate(job["task"])
        pictures = Path(job["pictures"]) if job["pictures"] else None
        run_pretraining(task, Path(job["data"]), Path(job["output"]), Path(job["state"]), job["code"], pictures)


if __name__ == "__main__":
    main()
