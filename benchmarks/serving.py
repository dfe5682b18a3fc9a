"""What a finished run costs in use: time to open it, latency of one history's recommendations, size on disk.

Every system of a finished experiment, its first seed: `tessera.load`, then `recommend` for single histories of the
dataset's users, ten items each, one call a history; the first calls are left out. Times are CPU time of this process,
one thread. The size is that of the folder that `save` writes, ids and titles included.

    python benchmarks/serving.py                     # results/bazaar of the working directory
    python benchmarks/serving.py results/shop --histories 1000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import tessera
from tessera.data.dataset import load_dataset

LEFT_OUT = 5


def first_seeds(dataset: Path) -> list[Path]:
    """The folder of the first seed of every system and recommender."""
    found: dict[Path, Path] = {}
    for path in sorted(dataset.glob("runs/*/*/seed-*/model.json"), key=lambda p: int(p.parent.name.split("-")[1])):
        found.setdefault(path.parent.parent, path.parent)
    return [found[key] for key in sorted(found)]


def measure(run: Path, histories: list[list[int]]) -> dict[str, float]:
    """Seconds to open, milliseconds a history, bytes on disk."""
    started = time.process_time()
    recommender = tessera.load(run, device="cpu")
    opened = time.process_time() - started
    raw = recommender.catalogue.raw_ids
    taken = []
    for history in histories:
        ids = [raw[item] for item in history]
        started = time.process_time()
        recommender.recommend(ids)
        taken.append(1000 * (time.process_time() - started))
    with tempfile.TemporaryDirectory() as folder:
        saved = recommender.save(Path(folder) / "saved")
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    p50, p99 = np.quantile(taken[LEFT_OUT:], [0.5, 0.99])
    return {"open": opened, "p50": p50, "p99": p99, "size": size / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?", default=Path("results/bazaar"), help="folder of a dataset")
    parser.add_argument("--histories", type=int, default=200, help="histories asked for, of as many users")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.dataset / "data")
    users = np.random.default_rng(0).integers(data.n_users, size=arguments.histories + LEFT_OUT)
    histories = [data.items[data.offsets[user] : data.offsets[user + 1]].tolist() for user in users]
    print(f"{data.n_users:,} users, {data.n_items:,} items, mean history {np.mean([len(h) for h in histories]):.1f}\n")
    print("| run | open, s | p50, ms | p99, ms | on disk, MiB |\n|---|---|---|---|---|")
    for run in first_seeds(arguments.dataset):
        found = measure(run, histories)
        name = "/".join(run.parts[-3:-1])
        cells = f"{found['open']:.2f} | {found['p50']:.1f} | {found['p99']:.1f} | {found['size']:.2f}"
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
