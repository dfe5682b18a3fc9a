"""Results of click-through models, from predictions made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tessera.artifacts.files import write_json, write_text
from tessera.artifacts.tables import write_table
from tessera.evaluation import clicks
from tessera.evaluation.calibration import calibrated
from tessera.settings.ctr import CTREvaluation

SETTINGS = CTREvaluation(resamples=200)
RUNS = ["base/seed-1", "base/seed-2", "good_<one>/seed-1", "good_<one>/seed-2", "same/seed-1", "oracle/seed-0"]
SKILL = {"base": 0.2, "good_<one>": 0.6, "same": 0.2, "oracle": 1.5}


def make(root: Path) -> Path:
    """The results of four models and of an oracle, of 60 users and 1,200 impressions; gives `root`."""
    rng = np.random.default_rng(0)
    users, labels = np.repeat(np.arange(1, 61), 20), (rng.random(1200) < 0.4).astype(np.int8)
    parts = {name: {"samples": 10, "clicks": 0.4, "users": 3, "mean_history": 7.5, "longest_history": 9,
                    "empty_histories": 0.0, "unknown_items": 0.1} for name in ("train", "valid", "test")}  # fmt: skip
    told = {"events": 100, "users": 60, "items": 9, "categories": 2, "unit": "seconds", "parts": parts}
    write_json(root / "shop/ctr/samples/samples.json", told)
    base_noise = rng.normal(size=1200)
    for path in RUNS:
        name, seed = path.split("/")
        noise = base_noise + 0.01 * rng.normal(size=1200) if name == "same" else rng.normal(size=1200)
        noise = base_noise if path == "base/seed-1" else noise
        found = (1 / (1 + np.exp(-(SKILL[name] * 2 * (labels - 0.5) + 0.5 * noise)))).astype(np.float32)
        folder = root / "shop/ctr/runs" / path
        table = pa.table({"user": users, "item": users, "label": labels, "history_length": users, "probability": found})
        write_table(folder / "predictions.parquet", table, "ctr_predictions")
        half = np.arange(1200) < 600
        groups = {
            "popularity": {"head": half, "tail": ~half},
            "history": {"1-50": half, ">50": ~half},
        }
        summary = {
            "model": name, "seed": int(seed[-1]), "kind": "din", "samples": 1200, "users": 60, "clicks": 0.4,
            "metrics": clicks.summarize(users, labels, found, 15), "calibration": clicks.calibration(labels, found, 15),
            "groups": {k: {n: {"samples": 600, "metrics": clicks.summarize(users[m], labels[m], found[m], 15)}
                           for n, m in g.items()} for k, g in groups.items()},
        }  # fmt: skip
        if name != "oracle":
            summary |= {
                "parameters": 1234,
                "latency": {"p50_ms": SKILL[name], "p99_ms": 2.0, "candidates": 7, "mean_history": 30.0},
            }
            summary |= {"retrieval": {"recall": 0.5}} if name == "same" else {}
            summary |= {"calibrated": calibrated((labels[half], found[half]), (labels, found), 15)}
            rows = "".join(f'{{"step": {n}, "loss": 1.0, "cross-entropy": {1 / n}}}\n' for n in range(1, 100))
            write_text(folder / "history.jsonl", rows)
        write_json(folder / "metrics.json", summary)
    return root
