"""What a finished run costs in use: time to open it, latency of one history's recommendations, size on disk.

Every system of a finished experiment, its first seed: `tessera.load`, then `recommend` for single histories of the
dataset's users, ten items each, one call a history; the first calls are left out. Times are CPU time of this process,
one thread. The size is that of the folder that `save` writes, ids and titles included.

    python benchmarks/serving.py                     # results/demo/bazaar of the working directory
    python benchmarks/serving.py results/my/shop --histories 1000
    python benchmarks/serving.py --items 200000      # random logs and weights: what is computed is the same
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import tessera
from tessera.artifacts.codes import Part, SemanticIds, write_codes
from tessera.artifacts.models import write_model
from tessera.artifacts.places import place
from tessera.artifacts.tables import write_item_table, write_table
from tessera.data.dataset import Dataset, load_dataset
from tessera.plan.graph import Plan
from tessera.recommenders.inputs import RunInputs
from tessera.recommenders.systems.base import fixed, recommender
from tessera.serving.folder import run_files
from tessera.settings.config import load

LEFT_OUT = 5
SYSTEMS = {
    "popular": {"recommender": "popular"},
    "item_knn": {"recommender": "item_knn"},
    "markov": {"recommender": "markov"},
    "id": {"items": "ids"},
    "table": {"items": {"table": "vectors"}},
    "tiger": {"recommender": "tiger", "semantic_ids": "codes"},
}
CONFIG = {
    "datasets": {"random": {"source": "bazaar"}},
    "tables": {"vectors": {"recipe": "vectors", "path": "vectors.npy"}},
    "semantic_ids": {"codes": {"quantizer": "rq_kmeans", "tables": "vectors"}},
    "systems": SYSTEMS,
    "experiment": {"datasets": ["random"], "systems": [*SYSTEMS], "backbones": ["sasrec", "gru4rec"], "seeds": [1]},
}
WIDTH, LEVELS, CODES = 384, 4, 256


def write_dataset(folder: Path, items: int, users: int, length: int) -> Dataset:
    """A random log."""
    rng = np.random.default_rng(0)
    rows = users * length
    log = {
        "user": np.repeat(np.arange(1, users + 1), length), "item": rng.zipf(1.2, rows) % items + 1,
        "position": np.tile(np.arange(length), users), "split": ["train"] * rows,
        "timestamp": pa.nulls(rows, pa.int64()), "rating": pa.nulls(rows, pa.float32()),
    }  # fmt: skip
    write_table(folder / "interactions.parquet", pa.table(log), "interactions")
    names = [f"SKU{number:06}" for number in range(1, items + 1)]
    told = {"attributes": pa.array([[]] * items, pa.map_(pa.string(), pa.string())), "image": pa.nulls(items)}
    table = pa.table({"item": range(1, items + 1), "raw_id": names, "title": [f"The {name}" for name in names], **told})
    write_table(folder / "items.parquet", table, "items")
    owners = pa.table({"user": range(1, users + 1), "raw_id": [f"u{user}" for user in range(1, users + 1)]})
    write_table(folder / "users.parquet", owners, "users")
    return load_dataset(folder)


def write_world(dataset: Path, items: int) -> None:
    """Runs of random weights over a random catalogue, as the workflow would leave them."""
    rng = np.random.default_rng(0)
    data = write_dataset(dataset / "data", items, max(1000, items // 4), 20)
    numbers = np.arange(1, items + 1)
    vectors = rng.normal(size=(items, WIDTH)).astype(np.float32)
    write_item_table(dataset / place("table", "vectors"), numbers, vectors)
    codes = np.vstack([np.full((1, LEVELS), -1), rng.integers(CODES, size=(items, LEVELS))])
    path = dataset / place("semantic_ids", "codes")
    write_codes(path, SemanticIds(codes, (Part("vectors", (CODES,) * LEVELS),)), {}, {})
    write_model(path.with_name("model.safetensors"), {"codebooks.0.0": torch.zeros(CODES, 8)}, {})
    for run in Plan(load(CONFIG)).runs:
        weights = dataset / place("run", run.path)
        told = {"run": run.model_dump(mode="json"), "items": items}
        write_model(weights, {"none": torch.zeros(1)}, told)  # the files of a run are found by its description
        if run.heuristic:
            tensors = fixed(run).make(run, data, dataset / "data", RunInputs(), weights.parent)
        else:
            tensors = recommender(run).build(run, run_files(weights.parent).inputs, data.train_counts).state_dict()
        write_model(weights, tensors, told)


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
    parser.add_argument(
        "dataset", type=Path, nargs="?", default=Path("results/demo/bazaar"), help="folder of a dataset"
    )
    parser.add_argument("--histories", type=int, default=200, help="histories asked for, of as many users")
    parser.add_argument("--items", type=int, help="a random world of so many items in place of a dataset")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.items:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            write_world(Path(folder, "results/random"), arguments.items)
            report(Path(folder, "results/random"), arguments.histories)
    else:
        report(arguments.dataset, arguments.histories)


def report(dataset: Path, count: int) -> None:
    """The table of a dataset's runs."""
    data = load_dataset(dataset / "data")
    users = np.random.default_rng(0).integers(data.n_users, size=count + LEFT_OUT)
    histories = [data.items[data.offsets[user] : data.offsets[user + 1]].tolist() for user in users]
    print(f"{data.n_users:,} users, {data.n_items:,} items, mean history {np.mean([len(h) for h in histories]):.1f}\n")
    print("| run | open, s | p50, ms | p99, ms | on disk, MiB |\n|---|---|---|---|---|")
    for run in first_seeds(dataset):
        found = measure(run, histories)
        name = "/".join(run.parts[-3:-1])
        cells = f"{found['open']:.2f} | {found['p50']:.1f} | {found['p99']:.1f} | {found['size']:.2f}"
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
