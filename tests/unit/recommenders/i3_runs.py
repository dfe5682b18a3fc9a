"""Small runs of both forms of I3-MRec over a table of texts and one of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pattern import ITEMS

from tessera.plan.graph import Plan
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import recommender
from tessera.recommenders.train import train_run
from tessera.settings.config import load
from tessera.settings.missing import Missing
from tessera.settings.runs import Run
from tessera.training.machine import seed_step

POPULARITY = np.arange(ITEMS + 1)
TABLES = {"text": "t", "image": "p"}
FORMS: dict[str, dict[str, Any]] = {
    "i3_mrec": {"recommender": "i3_mrec", **TABLES, "adapter": [8], "dropout": 0.1},
    "i3_mrec_graph": {"recommender": "i3_mrec_graph", **TABLES, "dim": 12, "dropout": 0.1},
}


def run_of(
    form: str = "i3_mrec", backbone: str = "sasrec", training: dict[str, Any] | None = None, **settings: Any
) -> Run:
    """The run of a form with some keys changed."""
    shape: dict[str, Any] = {"dim": 16, "max_length": 12, "dropout": 0.1}
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": dict.fromkeys(("sasrec", "gru4rec", "bert4rec", "mamba"), shape),
        "tables": {name: {"recipe": "vectors", "path": f"{name}.npy"} for name in TABLES.values()},
        "systems": {"s": {**FORMS[form], **settings}},
        "training": {"epochs": 4, "batch_tokens": 200, "learning_rate": 0.01, "device": "cpu", **(training or {})},
        "experiment": {"datasets": ["x"], "systems": ["s"], "backbones": [backbone], "seeds": [1]},
    }
    return Plan(load(config)).runs[0]


def build(run: Run, inputs: RunInputs, missing: Missing | None = None, popularity: np.ndarray = POPULARITY) -> Any:
    """The untrained system as it is judged."""
    seed_step(1)
    read = inputs.model_copy(update={"missing": missing, "modalities": {"t": ["text"], "p": ["image"]}})
    return recommender(run).build(run, read, popularity).eval()


def trained(run: Run, data: Path, inputs: RunInputs, folder: Path) -> Path:
    """Its weights after training."""
    output = folder / "model.safetensors"
    train_run(run, data, inputs, output, folder / "state")
    return output


def curve(output: Path) -> list[dict[str, Any]]:
    """The rows of its training."""
    return [json.loads(line) for line in output.with_name("history.jsonl").read_text().splitlines()]
