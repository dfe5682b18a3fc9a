"""Every stage over the size of a log: CPU seconds and peak memory, each in a process of its own, one thread.

A CSV of so many interactions is made: a user has 8 on average (log-normal, few have hundreds), an item 16, by Zipf's
law. It goes through ingest and prepare (5-core left out: what grows is kept), ItemKNN, so many steps of SASRec with
sampled softmax over the whole catalogue, the judging of so many drawn test users, and lists for as many.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/growth.py --rows 100000 300000 1000000

Prints a row of the table as it is measured, and the table at the end (results/growth.md). Imports are not counted as
time, but as memory. A size whose stages are not wanted here is prepared alone: `--stages generate ingest prepare`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
              "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
STAGES = ("generate", "ingest", "prepare", "fit ItemKNN", "judge ItemKNN", "train SASRec", "judge SASRec", "recommend")
A_USER, AN_ITEM = 8, 16
"""Mean interactions."""


def generate(path: Path, rows: int) -> None:
    """The log, `user,item,timestamp` a line."""
    import polars as pl

    draw = np.random.default_rng(0)
    users, items = rows // A_USER, rows // AN_ITEM
    sizes = np.maximum(3, draw.lognormal(np.log(A_USER) - 0.5, 1.0, users).astype(np.int64))
    weights = np.cumsum(1.0 / np.arange(1, items + 1))
    places = np.searchsorted(weights / weights[-1], draw.random(int(sizes.sum()))).clip(max=items - 1)
    owner = np.repeat(np.arange(users), sizes)
    log = pl.DataFrame({"user": owner, "item": draw.permutation(items)[places], "timestamp": np.arange(len(owner))})
    log.with_columns(pl.format("u{}", "user").alias("user"), pl.format("i{}", "item").alias("item")).write_csv(path)


def _dataset(folder: Path) -> Any:
    from tessera.settings.config import load

    section = {
        "source": "columns",
        "path": str(folder / "log.csv"),
        "timestamp": "timestamp",
        "cleaning": {"core": None},
    }
    config = {"datasets": {"x": section}, "experiment": {"datasets": ["x"], "systems": ["popular"], "seeds": [1]}}
    return load(config).datasets["x"]


def _run(system: str) -> Any:
    from tessera.plan.graph import Plan
    from tessera.settings.config import load

    systems = {"item_knn": {"recommender": "item_knn"}}
    config = {
        "datasets": {"x": {"source": "bazaar"}}, "systems": systems, "loss": {"kind": "sampled_softmax"},
        "training": {"epochs": 1, "device": "cpu", "checkpoint_seconds": 1e9},
        "experiment": {"datasets": ["x"], "systems": [system], "seeds": [1]},
    }  # fmt: skip
    return Plan(load(config)).runs[0]


class First:
    """The first batches of every epoch alone."""

    def __init__(self, batches: Any, steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.targets = sum(int((batches.lengths[numbers] - 1).sum()) for numbers in self.plan(1, 0))

    def plan(self, seed: int, epoch: int) -> list[np.ndarray]:
        """As many as wanted of the planned batches."""
        planned: list[np.ndarray] = self.batches.plan(seed, epoch)
        return planned[: self.steps]

    def batch(self, numbers: np.ndarray) -> Any:
        """One of them."""
        return self.batches.batch(numbers)


def stage(name: str, folder: Path, rows: int, steps: int, users: int) -> Callable[[], Any]:
    """The work of a stage, its modules loaded and its settings read."""
    from tessera.settings.sources.base import ingest_settings, prepare_settings

    data, dataset = folder / "data", _dataset(folder)
    if name in ("generate", "ingest", "prepare"):
        from tessera.data.ingest import ingest
        from tessera.data.prepare import prepare

        first: dict[str, Callable[[], Any]] = {
            "generate": lambda: generate(folder / "log.csv", rows),
            "ingest": lambda: ingest(ingest_settings(dataset), folder / "raw"),
            "prepare": lambda: prepare(folder / "raw", data, prepare_settings(dataset)),
        }
        return first[name]
    import torch

    from tessera.artifacts.models import write_model
    from tessera.artifacts.tables import write_table
    from tessera.data.dataset import load_dataset
    from tessera.evaluation.drawn_users import draw_test_users
    from tessera.recommenders.evaluate import evaluate_run
    from tessera.recommenders.inputs import RunInputs
    from tessera.recommenders.systems.base import recommender, training_histories
    from tessera.recommenders.train import train_run
    from tessera.serving.everyone import recommend_everyone
    from tessera.settings.evaluation import Evaluation
    from tessera.settings.recommend import Recommend
    from tessera.training.engine import Engine
    from tessera.training.machine import Machine, seed_step

    torch.set_num_threads(1)
    run = _run("item_knn" if "KNN" in name else "id")
    model = folder / run.system / "model.safetensors"
    judged = Evaluation(test_users=users)

    def train() -> None:
        read = load_dataset(data)
        seed_step(1)
        made = recommender(run).build(run, RunInputs(), read.train_counts)
        first = First(made.batches(run, training_histories(read)), steps)
        phase = made.epochs(run, first, None)
        Engine(made, [phase], run.training, 1, folder / "state", Machine(run.training)).fit()
        write_model(model, made.state_dict(), {"run": run.model_dump(mode="json"), "items": read.n_items})

    def judge() -> None:
        drawn = folder / "test_users.parquet"
        write_table(drawn, draw_test_users(load_dataset(data).cases("test"), judged), "test_users")
        out = model.parent
        evaluate_run(run, judged, model, data, RunInputs(), None, out / "e.parquet", out / "m.json", drawn)

    def recommend() -> None:
        chosen = folder / "users.txt"
        chosen.write_text("".join(f"u{user}\n" for user in range(min(users, rows // A_USER))))
        outputs = (model.parent / "lists.parquet", model.parent / "lists.csv")
        recommend_everyone(run, Recommend(), model, data, RunInputs(), None, chosen, *outputs)

    work: dict[str, Callable[[], Any]] = {
        "fit ItemKNN": lambda: train_run(run, data, RunInputs(), model, folder / "state"),
        "judge ItemKNN": judge,
        "train SASRec": train,
        "judge SASRec": judge,
        "recommend": recommend,
    }
    return work[name]


def worker(name: str, folder: Path, rows: int, steps: int, users: int) -> None:
    """One measured stage; prints seconds and the largest memory."""
    work = stage(name, folder, rows, steps, users)
    before = os.times()
    work()
    after = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"user": after.user - before.user, "kernel": after.system - before.system, "GiB": peak}))


def main() -> None:
    """Run the stages of every size in turn and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=50, help="of training")
    parser.add_argument("--users", type=int, default=1000, help="judged, and given lists")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--keep", type=Path, help="a folder to work in, which is kept")
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.keep, given.rows[0], given.steps, given.users)
        return
    measured: dict[int, dict[str, dict[str, float]]] = {}
    counts: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for rows in given.rows:
            folder = (given.keep or Path(temporary)) / str(rows)
            folder.mkdir(parents=True, exist_ok=True)
            for name in given.stages:
                more = ["--rows", str(rows), "--steps", str(given.steps), "--users", str(given.users)]
                command = [sys.executable, __file__, "--worker", name, "--keep", str(folder), *more]
                done = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=False
                )
                if done.returncode:
                    print(done.stderr[-3000:], file=sys.stderr)
                    measured.setdefault(rows, {})
                    continue
                measured.setdefault(rows, {})[name] = json.loads(done.stdout.strip().splitlines()[-1])
                print(rows, name, measured[rows][name], flush=True)
            stats = folder / "data/stats.json"
            if stats.is_file():
                kept = json.loads(stats.read_text())["counts"]
                counts[rows] = f"{kept['interactions']:,} rows, {kept['users']:,} users, {kept['items']:,} items"
        report(given, measured, counts)


def report(given: argparse.Namespace, measured: dict[int, dict[str, dict[str, float]]], counts: dict[int, str]) -> None:
    """Print the table of what was measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "polars"))
    sizes = list(measured)
    command = f"python benchmarks/growth.py --rows {' '.join(map(str, sizes))}"
    lines = [
        f"{datetime.now(UTC).date()}, {os.cpu_count()} cores {platform.machine()}, shared with other work: CPU seconds",
        "(in parentheses those of the kernel among them) and peak memory of a process a stage, one thread;",
        f"Python {platform.python_version()}, {packages}.",
        "",
        f"    {command} --steps {given.steps} --users {given.users}",
        "",
        *(f"- {size}" for size in counts.values()),
        "",
        "| stage | " + " | ".join(f"{size:,} rows" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for name in STAGES:
        cells = [measured[size].get(name) for size in sizes]
        texts = [
            f"{c['user'] + c['kernel']:.1f} s ({c['kernel']:.1f}), {c['GiB']:.2f} GiB" if c else "not run"
            for c in cells
        ]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
