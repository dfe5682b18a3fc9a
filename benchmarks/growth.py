"""Every stage over the size of a log: CPU seconds and peak memory, each in a process of its own, one thread.

A CSV of so many interactions is made: a user has 10 on average (log-normal, few have hundreds), an item 10, one of
each and the rest by Zipf's law. Beside it are titles of all items and vectors of width 64. It goes through ingest and
prepare (5-core left out: what grows is kept); a table that a small language model makes of the titles in shards, a
table of the vectors; semantic IDs by residual k-means and by an RQ-VAE; ItemKNN; so many steps of SASRec with sampled
softmax over the whole catalogue; the judging of so many drawn test users; and lists for as many.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/growth.py --rows 100000 1000000 --keep FOLDER

Prints a stage as it is measured, and the table at the end (results/growth.md). Imports are not counted as time, but as
memory. What was measured in a folder that is kept stays there (measured.jsonl): stages can be measured one by one, and
table and charts show the last of each.
"""

from __future__ import annotations

import argparse
import json
import math
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
STAGES = (
    "generate", "ingest", "prepare", "table in shards", "table of vectors", "quantise RQ-k-means", "quantise RQ-VAE",
    "fit ItemKNN", "judge ItemKNN", "train SASRec", "judge SASRec", "recommend",
)  # fmt: skip
A_USER, AN_ITEM = 10, 10
"""Mean interactions."""
AIM = "8 GiB, the aim"
MEASURED = "measured.jsonl"
WIDTH = 64
"""Of item vectors, and of the model that reads titles."""
WORDS = (("red", "green", "blue", "black"), ("oak", "steel", "glass", "wool"), ("lamp", "chair", "kettle", "carpet"))


def generate(folder: Path, rows: int) -> None:
    """log.csv, `user,item,timestamp` a line; items.csv, `item,title`; vectors.parquet, whose spectrum falls."""
    import polars as pl

    draw = np.random.default_rng(0)
    users, items = rows // A_USER, rows // AN_ITEM
    sizes = np.maximum(3, draw.lognormal(np.log(A_USER) - 0.5, 1.0, users).astype(np.int64))
    owner = np.repeat(np.arange(users), sizes)
    weights = np.cumsum(1.0 / np.arange(1, items + 1))
    zipf = np.searchsorted(weights / weights[-1], draw.random(len(owner) - items)).clip(max=items - 1)
    item = draw.permutation(np.concatenate([np.arange(items), draw.permutation(items)[zipf]]))
    log = pl.DataFrame({"user": owner, "item": item, "timestamp": np.arange(len(owner))})
    log = log.with_columns(pl.format("u{}", "user").alias("user"), pl.format("i{}", "item").alias("item"))
    log.write_csv(folder / "log.csv")
    words = pl.DataFrame({str(place): draw.choice(some, items) for place, some in enumerate(WORDS)})
    named = words.with_columns(item=pl.format("i{}", pl.int_range(items)))
    titles = pl.format("{} {} {} {}", "0", "1", "2", "item").alias("title")
    named.select("item", titles).write_csv(folder / "items.csv")
    vectors = draw.standard_normal((items, WIDTH), np.float32) / np.arange(1, WIDTH + 1, dtype=np.float32) ** 0.5
    pl.DataFrame({"raw_id": named["item"], "embedding": vectors}).write_parquet(folder / "vectors.parquet")


def _dataset(folder: Path) -> Any:
    from tessera.settings.config import load

    section = {
        "source": "columns",
        "path": str(folder / "log.csv"),
        "timestamp": "timestamp",
        "cleaning": {"core": None},
        "items": {"path": str(folder / "items.csv"), "id": "item", "title": "title"},
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
    if name in ("generate", "ingest", "prepare"):
        return _data_stage(name, folder, rows)
    if name.startswith(("table", "quantise")):
        return _table_stage(name, folder, steps)
    return _run_stage(name, folder, rows, steps, users)


def _data_stage(name: str, folder: Path, rows: int) -> Callable[[], Any]:
    from tessera.data.ingest import ingest
    from tessera.data.prepare import prepare
    from tessera.settings.sources.base import ingest_settings, prepare_settings

    dataset = _dataset(folder)
    work: dict[str, Callable[[], Any]] = {
        "generate": lambda: generate(folder, rows),
        "ingest": lambda: ingest(ingest_settings(dataset), folder / "raw"),
        "prepare": lambda: prepare(folder / "raw", folder / "data", prepare_settings(dataset)),
    }
    return work[name]


def _reader(folder: Path) -> Any:
    """The settings of a language model of one layer with random weights, which is written to `folder`."""
    from tessera.language.built import make_image_processor, make_model, save_built, train_tokenizer
    from tessera.settings.language import BuiltModel

    settings = BuiltModel(built="qwen2.5-vl", hidden=WIDTH, layers=1, vision_layers=1, heads=2, vocabulary=500)
    tokenizer = train_tokenizer([f"title is {' '.join(words)} i0" for words in zip(*WORDS, strict=True)] * 4, settings)
    save_built(folder, make_model(settings, tokenizer), tokenizer, make_image_processor(settings))
    return settings


def _table_stage(name: str, folder: Path, steps: int) -> Callable[[], Any]:
    import torch

    from tessera.data.vectors import make_table
    from tessera.embedding.embed import embed
    from tessera.embedding.task import Places, Task
    from tessera.quantization.quantize import quantize
    from tessera.settings.kinds import implementation
    from tessera.settings.quantizers.rq_kmeans import RQKMeans
    from tessera.settings.quantizers.rq_vae import RQVAE
    from tessera.settings.recipes.vectors import VectorsTable

    torch.set_num_threads(1)
    catalogue, table = str(folder / "data/items.parquet"), folder / "vectors-table.parquet"
    if name == "table in shards":
        hidden = {"recipe": "hidden", "model": "reader", "source": "text"}
        task = Task.model_validate({"table": hidden, "prompt": {}, "model": _reader(folder / "reader")})
        implementation(task.table)
        read = Places(catalogue=catalogue, captions={}, model=str(folder / "reader"))
        return lambda: embed(task, read, folder / "hidden-table.parquet", folder / "state", "")
    if name == "table of vectors":
        vectors = folder / "vectors.parquet"
        files = {"source": str(vectors), "catalogue": catalogue}
        return lambda: make_table(VectorsTable(path=str(vectors)), files, str(table))
    settings: Any = {
        "quantise RQ-k-means": RQKMeans(tables=["vectors"]),
        "quantise RQ-VAE": RQVAE.model_validate(
            {
                "tables": ["vectors"],
                "training": {"steps": steps, "device": "cpu", "checkpoint_seconds": 1e9},
            }
        ),
    }[name]
    implementation(settings)
    codes = folder / settings.quantizer / "codes.parquet"
    return lambda: quantize(settings, {"vectors": table}, None, folder / "data", codes, folder / "state", "")


def _run_stage(name: str, folder: Path, rows: int, steps: int, users: int) -> Callable[[], Any]:
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
    data = folder / "data"
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


Cells = dict[int, dict[str, dict[str, float]]]
"""What was measured: rows -> stage -> user and kernel seconds, GiB."""


def measure(name: str, folder: Path, rows: int, steps: int, users: int) -> None:
    """Run a stage in a process of its own, tell what it took, and keep that in the folder; or tell why it failed."""
    more = ["--rows", str(rows), "--steps", str(steps), "--users", str(users)]
    command = [sys.executable, __file__, "--worker", name, "--keep", str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=False)
    if done.returncode:
        print(rows, name, "failed:", done.stderr[-3000:], file=sys.stderr)
        return
    row = {"rows": rows, "stage": name, "users": users, "steps": steps, **json.loads(done.stdout.splitlines()[-1])}
    print(json.dumps(row), flush=True)
    with (folder / MEASURED).open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Run the stages of every size in turn and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--users", type=int, default=1000, help="judged, and given lists")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--keep", type=Path, help="a folder to work in, which is kept")
    parser.add_argument("--charts", type=Path, help="a folder for growth-seconds.svg and growth-memory.svg")
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.keep, given.rows[0], given.steps, given.users)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folders = {rows: (given.keep or Path(temporary)) / str(rows) for rows in given.rows}
        for rows, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            for name in given.stages:
                measure(name, folder, rows, given.steps, given.users)
        cells = {rows: measured(folder, given.steps, given.users) for rows, folder in folders.items()}
        report(given, cells, list(filter(None, map(counts, folders.values()))))
    if given.charts:
        charts(given.charts, cells)


def measured(folder: Path, steps: int, users: int) -> dict[str, dict[str, float]]:
    """The last of every stage, with so many steps and users."""
    kept = folder / MEASURED
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    return {row["stage"]: row for row in rows if (row["steps"], row["users"]) == (steps, users)}


def counts(folder: Path) -> str:
    """What the dataset of a folder holds; empty where there is none."""
    stats = folder / "data/stats.json"
    if not stats.is_file():
        return ""
    kept = json.loads(stats.read_text())["counts"]
    return f"{kept['interactions']:,} rows, {kept['users']:,} users, {kept['items']:,} items"


def report(given: argparse.Namespace, cells: Cells, sizes: list[str]) -> None:
    """Print the table of what was measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "polars"))
    command = f"python benchmarks/growth.py --rows {' '.join(map(str, cells))}"
    lines = [
        f"{datetime.now(UTC).date()}, {os.cpu_count()} cores {platform.machine()}, shared with other work: CPU seconds",
        "(in parentheses those of the kernel among them) and peak memory of a process a stage, one thread;",
        f"Python {platform.python_version()}, {packages}.",
        "",
        f"    {command} --steps {given.steps} --users {given.users}",
        "",
        *(f"- {size}" for size in sizes),
        "",
        "| stage | " + " | ".join(f"{size:,} rows" for size in cells) + " | power | ten times that, by calculation |",
        "|---" * (len(cells) + 3) + "|",
    ]
    for name in STAGES:
        row = [size.get(name) for size in cells.values()]
        texts = [f"{seconds(c):.1f} s ({c['kernel']:.1f}), {c['GiB']:.2f} GiB" if c else "not run" for c in row]
        lines.append(f"| {name} | " + " | ".join([*texts, *beyond(list(cells), row)]) + " |")
    print("\n".join(lines))


def seconds(cell: dict[str, float]) -> float:
    """All CPU seconds of a stage."""
    return cell["user"] + cell["kernel"]


def beyond(sizes: list[int], row: list[dict[str, float] | None]) -> tuple[str, str]:
    """With what power of the rows the seconds grow between the last two sizes, and the line through both, ten times on.

    Args:
        sizes: rows.
        row: what a stage took at each.
    """
    if len(row) < 2 or row[-1] is None or row[-2] is None:
        return "", ""
    less, most = row[-2:]
    steps = 9 * sizes[-1] / (sizes[-1] - sizes[-2])
    power = math.log(seconds(most) / seconds(less)) / math.log(sizes[-1] / sizes[-2])
    time, memory = (
        last + steps * (last - first) for first, last in ((seconds(less), seconds(most)), (less["GiB"], most["GiB"]))
    )
    return f"{power:.2f}", f"{time:,.0f} s, {memory:.1f} GiB"


def charts(folder: Path, cells: Cells) -> None:
    """Seconds and memory of every stage over the rows of the log."""
    from line_plot import line_plot

    values: dict[str, tuple[str, Callable[[dict[str, float]], float]]] = {
        "seconds": ("CPU seconds", seconds),
        "memory": ("peak memory, GiB", lambda cell: cell["GiB"]),
    }
    for what, (title, value) in values.items():
        points = [
            {"name": name, "x": rows, "y": value(cell)}
            for rows, stages in cells.items()
            for name, cell in stages.items()
            if name != "generate"
        ]
        if what == "memory":
            points += [{"name": AIM, "x": rows, "y": 8.0} for rows in cells]
        shown = [name for name in (*STAGES, AIM) if any(point["name"] == name for point in points)]
        about = f"{title} by rows", f"{title} of each stage over the rows of the log"
        (folder / f"growth-{what}.svg").write_text(line_plot(points, shown, ("rows of the log", title), about))


if __name__ == "__main__":
    main()
