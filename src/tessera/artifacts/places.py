"""Where what jobs make lies.

All of an experiment is below `results/<experiment>/`, a folder a dataset; a saved recommender keeps the places of a
dataset below its folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from tessera.artifacts.files import identity

RESULTS = "results"
"""Below it every experiment has a folder."""
REPORT = "report/index.html"
"""The page of an experiment."""
_NEAR = "./"
_FINAL = "-final"

_FOLDERS = {
    "run": ("runs", "model.safetensors"),
    "trial": ("trials", "trial.json"),
    "click_run": ("ctr/runs", "model.safetensors"),
    "embedder": ("embedders", "model.safetensors"),
    "semantic_ids": ("semantic_ids", "codes.parquet"),
}
FINISH = "finish.safetensors"
"""Ending of the file beside a table that says how its rows were finished."""
CORRUPTED = "corruption.parquet"
"""In the folder of a run: ranks at missing rates."""
PICTURES = "raw/pictures.json"
"""What is told of a dataset's pictures."""
_FILES = {"table": "tables", "captions": "captions"}


def place(kind: str, name: str, file: str = "") -> str:
    """The path of what a job makes, or of another file (`file`) in the folder that it makes.

    Args:
        kind: run, trial, click_run, embedder, semantic_ids, table, captions or model (a folder).
        name: its name in the config; a run's is its folder.
        file: of what is a file itself, another ending: `finish.safetensors` of a table.
    """
    if kind in _FOLDERS:
        folder, usual = _FOLDERS[kind]
        return f"{folder}/{name}/{file or usual}"
    if kind == "model":
        return f"models/{name}"
    return f"{_FILES[kind]}/{name}.{file or 'parquet'}"


def experiment_folder(name: str) -> str:
    """Where all that an experiment makes lies."""
    return f"{RESULTS}/{name}"


_LONGEST = 200
"""Bytes of the name of a job's folder."""


def state_folder(output: str | Path) -> Path:
    """Where the job of an output keeps what it goes on from when it was killed, `state/<experiment>/<job>`.

    Each has a folder of its own: jobs that make the same of the same files (two datasets that differ in their prompt
    alone, a table under two names) may run beside one another.
    """
    _, experiment, *below = Path(output).with_suffix("").parts
    job = "+".join(below)
    return Path("state", experiment, job if len(job.encode()) <= _LONGEST else identity(job))


def final_name(dataset: str) -> str:
    """The name of a dataset with every interaction in training."""
    return f"{dataset}{_FINAL}"


def validated_name(dataset: str) -> str:
    """The name of the dataset that `final_name` was given; any other name stays."""
    return dataset.removesuffix(_FINAL)


def near(folder: str | Path, beside: Path) -> str:
    """A folder as a file below `beside` names it, `./raw/images`: both can be moved together."""
    return f"{_NEAR}{os.path.relpath(folder, beside)}"


def is_near(folder: str) -> bool:
    """Whether `near` named it; any other path is as a person gave it, and such begin in no such way."""
    return folder.startswith(_NEAR)


def far(folder: str, beside: Path) -> str:
    """What `near` named, as a path that can be opened; any other path as it is."""
    return os.path.normpath(beside / folder) if is_near(folder) else folder
