"""Where what jobs make lies, below `results/<dataset>/`; a saved recommender keeps the same places below its folder."""

from __future__ import annotations

_FOLDERS = {
    "run": ("runs", "model.safetensors"),
    "trial": ("trials", "trial.json"),
    "click_run": ("ctr/runs", "model.safetensors"),
    "embedder": ("embedders", "model.safetensors"),
    "semantic_ids": ("semantic_ids", "codes.parquet"),
}
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
