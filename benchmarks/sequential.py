"""SASRec side by side: training targets and evaluated users per CPU second, here and in RecBole and RecTools.

Every program reads the same file of histories, holds out the same last two items of every user, builds the same
shape (two blocks of width 64, two heads, feed-forward 256, length 50, dropout 0.2, cross-entropy over the catalogue)
and runs on one thread. A target is one item that the loss is taken at; a peer that leaves targets out trains fewer.

    python benchmarks/sequential.py FILE --users 300 --recbole VENV/bin/python --rectools VENV/bin/python

FILE holds `item item ...` a line, a user a line, in time order; with `--user-first` the user's number comes first, as
in Beauty's file. The catalogue is the items of the users read, or with `--whole-catalogue` all items of the file.
The peers need environments of their own (numpy < 2):
    recbole==1.2.1 "setuptools<81" numpy==1.26.4 pandas==2.2.3 scipy==1.11.4   and   "rectools[torch]==0.19.0"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}


def read_histories(
    path: Path, users: int, user_first: bool = False, whole_catalogue: bool = False
) -> tuple[list[list[int]], int]:
    """The first `users` histories, items renumbered from 1, and how many items there are."""
    with path.open() as file:
        histories = [list(map(int, line.split()))[user_first:] for line in file]
    read = histories if whole_catalogue else histories[:users]
    known = {raw: dense for dense, raw in enumerate(sorted({i for h in read for i in h}), 1)}
    return [[known[raw] for raw in history] for history in histories[:users]], len(known)


def ours(histories: list[list[int]], items: int, epochs: int, inner: int) -> dict[str, float]:
    """Train and evaluate with Tessera."""
    import numpy as np
    import torch

    from tessera.data.dataset import Cases
    from tessera.evaluation.histories import Histories
    from tessera.evaluation.judge import evaluation_table, rank_cases, summarize
    from tessera.plan.graph import Plan
    from tessera.recommenders.inputs import RunInputs
    from tessera.recommenders.systems.backbone import SequentialRecommender
    from tessera.recommenders.systems.base import TrainingHistories, as_scorer
    from tessera.settings.config import load
    from tessera.settings.evaluation import Evaluation
    from tessera.settings.training import Training
    from tessera.training.engine import Engine
    from tessera.training.machine import Machine

    torch.set_num_threads(1)
    config = {
        "datasets": {"x": {"source": "bazaar"}},
        "backbones": {"sasrec": {"inner_dim": inner}},
        "experiment": {"datasets": ["x"], "systems": ["id"], "seeds": [1]},
    }
    run = Plan(load(config)).runs[0]
    train = [h[:-2] for h in histories]
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in train])])
    flat = np.concatenate(train).astype(np.int32)
    popularity = np.bincount(flat, minlength=items + 1)
    model = SequentialRecommender.build(run, RunInputs(), popularity)
    settings = Training(epochs=epochs + 1, device="cpu", checkpoint_seconds=1e9)
    ends: list[float] = []

    def validate() -> dict[str, float]:
        ends.append(time.process_time())
        return {"NDCG@10": float(len(ends))}

    run, learned = run.model_copy(update={"training": settings}), TrainingHistories(offsets, flat)
    program, batches = model.program(run, learned, validate), model.batches(run, learned)
    with tempfile.TemporaryDirectory() as state:
        Engine(model, program, settings, 1, Path(state), Machine(settings)).fit()
    training = ends[1] - ends[0]  # the first epoch warms up: allocator, kernels
    long = [h[:-1] for h in histories]
    users = np.arange(1, len(histories) + 1, dtype=np.int32)
    cases = Cases(
        users, np.array([h[-1] for h in histories], np.int32), np.concatenate([[0], np.cumsum([len(h) for h in long])]),
        np.concatenate(long).astype(np.int32),
    )  # fmt: skip
    judged = Evaluation()
    seconds = []
    for _ in range(5):
        started = time.process_time()
        ranked = rank_cases(as_scorer(model, torch.device("cpu")), cases, judged, recommend=20)
        summarize(evaluation_table(cases, ranked, popularity), judged, popularity, "full")
        seconds.append(time.process_time() - started)
    fixed = torch.randn(judged.batch_users, items)

    class Given:
        """Scores that cost nothing: what is left is masks, ranks, lists, metrics and groups."""

        max_history = 1
        gives_away = True  # a copy of its own, as the peer's

        def __call__(self, histories: Histories) -> torch.Tensor:
            return fixed[: len(histories)].clone()

    alone = []
    for _ in range(5):
        started = time.process_time()
        ranked = rank_cases(Given(), cases, judged, recommend=20)
        summarize(evaluation_table(cases, ranked, popularity), judged, popularity, "full")
        alone.append(time.process_time() - started)
    return {
        "judged_alone_per_cpu_second": len(histories) / statistics.median(alone),
        "targets": batches.targets,
        "train_cpu_seconds": training,
        "targets_per_cpu_second": batches.targets / training,
        "users_per_cpu_second": len(histories) / statistics.median(seconds),
        "evaluation_cpu_seconds": statistics.median(seconds),
    }


def peer(python: str, program: str, histories: list[list[int]], items: int, epochs: int) -> dict[str, float]:
    """Run a peer's program in its own environment; it prints one line of JSON last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "histories.json"
        path.write_text(json.dumps({"histories": histories, "items": items}))
        command = [python, str(HERE / "peers" / program), str(path), str(epochs)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, cwd=folder, check=False
        )
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Run everything in turn and print medians and ratios as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--user-first", action="store_true", help="lines begin with the user's number")
    parser.add_argument("--whole-catalogue", action="store_true", help="all items of FILE, not those of the users read")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recbole")
    parser.add_argument("--rectools")
    parser.add_argument("--only-ours", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    given = arguments.file, arguments.users, arguments.user_first, arguments.whole_catalogue
    histories, items = read_histories(*given)
    if arguments.only_ours:
        print(json.dumps(ours(histories, items, 1, arguments.only_ours)))
        return
    # RecTools' feed-forward is as wide as the model; a second row of ours has the same
    programs: dict[str, tuple[str, str | int]] = {
        "Tessera": (sys.executable, 256),
        "Tessera, feed-forward 64": (sys.executable, 64),
    }
    if arguments.rectools:
        programs["RecTools 0.19.0"] = (arguments.rectools, "rectools_sasrec.py")
    if arguments.recbole:
        programs["RecBole 1.2.1"] = (arguments.recbole, "recbole_sasrec.py")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for _ in range(arguments.repeats):  # in turn, so that a busy minute falls on all alike
        for name, (python, program) in programs.items():
            if isinstance(program, int):
                command = [python, *sys.argv, "--only-ours", str(program)]
                done = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=True
                )
                found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            else:
                found[name].append(peer(python, program, histories, items, 1))
    report(histories, items, found)


def judged(row: dict[str, float], base: dict[str, float]) -> str:
    """Users a CPU second when the scores are given: masks, ranks and metrics alone."""
    speed = row.get("judged_alone_per_cpu_second")
    return f"{speed:,.0f} | {base['judged_alone_per_cpu_second'] / speed:.1f}x" if speed else "not measured |"


def report(histories: list[list[int]], items: int, found: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians, and how many times faster Tessera is."""
    lengths = [len(h) for h in histories]
    print(f"{len(histories)} users, {items:,} items, {sum(lengths):,} interactions; one thread of {platform.machine()}")
    print(
        "\n| program | targets trained | targets / CPU s | ratio | users evaluated / CPU s | ratio "
        "| judged alone / CPU s | ratio |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    base = median["Tessera"]
    for name, row in median.items():
        train, users = row["targets_per_cpu_second"], row["users_per_cpu_second"]
        print(
            f"| {name} | {row['targets']:,.0f} | {train:,.0f} | {base['targets_per_cpu_second'] / train:.1f}x "
            f"| {users:,.0f} | {base['users_per_cpu_second'] / users:.1f}x | {judged(row, base)} |"
        )


if __name__ == "__main__":
    main()
