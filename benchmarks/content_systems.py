"""Systems that join texts and pictures with IDs, beside SASRec: training steps of each phase, and scores of a batch.

    OMP_NUM_THREADS=1 python benchmarks/content_systems.py [--items 8347] [--width 384] [--repeats 7]

Histories have the lengths of Amazon Prime Pantry (5 to 23 items, 9 on average) and its skew; a step holds `--tokens`
padded positions, as the ready configs do. Times are CPU seconds, every side in a process of its own, medians.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tessera.artifacts.tables import write_item_table
from tessera.evaluation.histories import Histories
from tessera.plan.graph import Plan
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import Recommender, TrainingHistories, recommender
from tessera.recommenders.systems.pad import PAD
from tessera.settings.config import load
from tessera.settings.runs import Run
from tessera.training.engine import Engine
from tessera.training.machine import Machine

SYSTEMS: dict[str, dict[str, Any]] = {
    "id": {"items": "ids"},
    "text": {"items": {"table": "t"}},
    "pad": {"recommender": "pad", "table": "t"},
    "findrec": {"recommender": "findrec", "text": "t", "image": "p"},
    "findrec_plain": {"recommender": "findrec", "text": "t", "image": "p", "bottleneck": None, "alignment": None},
    "eimf": {"recommender": "eimf"},
    "i3_mrec": {"recommender": "i3_mrec", "text": "t", "image": "p"},
    "i3_mrec_plain": {
        "recommender": "i3_mrec",
        "text": "t",
        "image": "p",
        "environment_weight": 0.0,
        "invariance": None,
        "keep": None,
        "compress": None,
        "detach": False,
    },
    "i3_mrec_gradient": {"recommender": "i3_mrec", "text": "t", "image": "p", "invariance": {"penalty": "gradient"}},
    "i3_mrec_graph": {"recommender": "i3_mrec_graph", "text": "t", "image": "p", "training": {"batch_tokens": 2048}},
}
STEPS = {
    "SASRec": ("id", None),
    "SASRec on the text table": ("text", None),
    "PAD, pre-train": ("pad", "pretrain"),
    "PAD, align": ("pad", "align"),
    "PAD, disentangle": ("pad", "disentangle"),
    "FindRec, no bottleneck, no alignment": ("findrec_plain", None),
    "FindRec": ("findrec", None),
    "EIMF, four vectors, nothing written": ("eimf", None),
    "I3-MRec, the main loss alone": ("i3_mrec_plain", None),
    "I3-MRec": ("i3_mrec", None),
    "I3-MRec, gradient penalty": ("i3_mrec_gradient", None),
    "I3-MRec as a graph, 2,048 pairs": ("i3_mrec_graph", None),
}
SCORES = {
    "SASRec": "id",
    "PAD, one product": "pad",
    "PAD, a product a tower, summed": "pad",
    "FindRec": "findrec",
    "EIMF, four vectors": "eimf",
    "I3-MRec": "i3_mrec",
}
USERS = 512


def run_of(system: str, tokens: int) -> Run:
    """The run of a system, defaults resolved."""
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "tables": {name: {"recipe": "vectors", "path": f"{name}.npy"} for name in ("t", "p")},
        "systems": {"s": SYSTEMS[system]},
        "backbones": {"sasrec": {"dropout": 0.5}},
        "training": {"batch_tokens": tokens, "device": "cpu"},
        "experiment": {"datasets": ["x"], "systems": ["s"], "seeds": [1]},
    }
    return Plan(load(config)).runs[0]


def histories(items: int, users: int = 4000) -> TrainingHistories:
    """Histories of a skewed catalogue."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(0.25, users), 21)
    shares = 1 / np.arange(20, items + 20)
    drawn = rng.choice(items, int(lengths.sum()), p=shares / shares.sum()) + 1
    return TrainingHistories(np.concatenate([[0], np.cumsum(lengths)]), drawn.astype(np.int64))


def built(system: str, items: int, width: int, tokens: int) -> tuple[Run, Recommender, TrainingHistories]:
    """An untrained system over random tables: `t` of texts, `p` of pictures."""
    run, learned = run_of(system, tokens), histories(items)
    with tempfile.TemporaryDirectory() as folder:
        tables = {}
        for number, name in enumerate(run.tables, 1):
            tables[name] = str(Path(folder) / f"{name}.parquet")
            rows = np.random.default_rng(number).standard_normal((items, width)).astype(np.float32)
            write_item_table(Path(tables[name]), np.arange(1, items + 1), rows)
        popularity = np.bincount(learned.items, minlength=items + 1)
        torch.manual_seed(0)
        model = recommender(run).build(run, RunInputs(tables=tables), popularity)
    return run, model, learned


def step(name: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """A whole training step: batch, losses, gradients and all optimisers, as the engine of every system takes it."""
    system, wanted = STEPS[name]
    run, model, learned = built(system, arguments.items, arguments.width, arguments.tokens)
    program = model.program(run, learned, None)
    number, phase = next((n, part) for n, part in enumerate(program) if wanted in (None, part.name))
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(model, program, run.training, run.seed, Path(folder), Machine(run.training))
        engine.phase = number
        engine._begin(phase)
    assert phase.batches is not None
    plan = phase.batches.plan(1, 0)

    def side() -> None:
        assert phase.batches is not None
        engine._step(phase, phase.batches.batch(plan[engine.step % len(plan)]), 10**6)

    return side


def scores(name: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """Scores of a batch of users, what depends on items alone made before."""
    _, model, learned = built(SCORES[name], arguments.items, arguments.width, arguments.tokens)
    if isinstance(model, PAD):
        model.stage.fill_(2)
    model.eval()
    lengths = np.diff(learned.offsets)[:USERS]
    rows = np.zeros((USERS, lengths.max()), np.int64)
    for user, length in enumerate(lengths):
        rows[user, :length] = learned.items[learned.offsets[user] : learned.offsets[user] + length]
    asked = Histories.of(rows)
    with torch.no_grad():
        prepared = model.prepare()
        parts = None
        if isinstance(model, PAD):
            weights = model.gate()[:, 1:]
            parts = [(model.tower(tower), model.tower(tower).vectors()) for tower in model.scoring]

    @torch.no_grad()
    def side() -> torch.Tensor:
        if parts is None or "summed" not in name:
            return model.score(asked, prepared)
        total = torch.zeros(())
        for weight, (tower, vectors) in zip(weights, parts, strict=True):
            states = tower.backbone.encode(asked.items, asked.lengths, vectors)
            total = total + weight * (states @ vectors[1:].T)
        return total

    return side


def measure(task: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One side in this process: CPU seconds after three warm-ups, and the memory at its most."""
    torch.set_num_threads(1)
    side = (step if task == "step" else scores)(name, arguments)
    for _ in range(3):
        result = side()
    seconds = []
    for _ in range(arguments.repeats):
        started = time.process_time()
        side()
        seconds.append(time.process_time() - started)
    apart = None
    if task == "scores" and "summed" in name:
        plain = scores("PAD, one product", arguments)()
        assert isinstance(plain, torch.Tensor)
        assert isinstance(result, torch.Tensor)
        apart = float((result - plain).abs().max() / plain.abs().max())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median(seconds), "memory": peak, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8347)
    parser.add_argument("--width", type=int, default=384, help="of the table")
    parser.add_argument("--tokens", type=int, default=1280, help="padded positions of a step")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments)))
        return
    print(
        "| task | side | CPU seconds | of SASRec's | peak memory, MiB | largest difference |\n|---|---|---|---|---|---|"
    )
    for task, names in (("step", STEPS), ("scores", SCORES)):
        first = None
        for name in names:
            command = [sys.executable, __file__, "--one", task, name]
            for key in ("items", "width", "tokens", "repeats"):
                command += [f"--{key}", str(getattr(arguments, key))]
            made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            first = first or made["seconds"]
            apart = "" if made["apart"] is None else f"{made['apart']:.1e}"
            cells = [task, name, f"{made['seconds']:.3g}", f"{made['seconds'] / first:.2f}x", f"{made['memory']:.0f}"]
            print(f"| {' | '.join([*cells, apart])} |", flush=True)


if __name__ == "__main__":
    main()
