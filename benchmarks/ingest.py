"""Raw reviews (JSON lines) to a prepared dataset: Tessera's stages beside a plain Python loop that does the same work.

Both read the same file, drop exact duplicates, apply the 5-core, number users and items, split leave-one-out and write
Parquet; the results are compared row by row. Each run is a process of its own, the two in turn.

    python benchmarks/ingest.py --rows 1000000 --repeats 3
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "ingest.md"
SECTION = {"source": "amazon_2018"}


def generate(path: Path, rows: int) -> None:
    """Reviews of long-tailed users and items, texts of about 300 characters, 1 % duplicates, day-resolution times."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randrange(2, 10))) for _ in range(5000)]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        line = ""
        for _ in range(rows):
            if not line or draw.random() > 0.01:
                text = " ".join(draw.choices(words, k=min(400, int(draw.lognormvariate(3.6, 0.9)) + 1)))
                review = {
                    "overall": float(draw.randrange(1, 6)),
                    "verified": True,
                    "reviewTime": "06 17, 2018",
                    "reviewerID": f"A{int(draw.random() ** 2 * rows / 12):013d}",
                    "asin": f"B{int(draw.random() ** 3 * rows / 30):09d}",
                    "style": {"Size:": " 50"},
                    "reviewerName": "A Customer",
                    "reviewText": f'{text} "é"',
                    "summary": text[:30],
                    "unixReviewTime": 1_300_000_000 // 86_400 * 86_400 + draw.randrange(2000) * 86_400,
                }
                line = json.dumps(review) + "\n"
            file.write(line)


def plain(path: Path, folder: Path) -> None:
    """The same work as a person would write it at first: a loop over lines, dictionaries, lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[tuple[str, str, int, float]] = []
    seen = set()
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            review = json.loads(line)
            row = (review["reviewerID"], review["asin"], review["unixReviewTime"], review["overall"])
            if row[:3] not in seen:
                seen.add(row[:3])
                rows.append(row)
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= 5 and items[row[1]] >= 5]
        if len(kept) == len(rows):
            break
        rows = kept
    user_ids = {raw: n for n, raw in enumerate(sorted({row[0] for row in rows}, key=lambda r: (len(r), r)), 1)}
    item_ids = {raw: n for n, raw in enumerate(sorted({row[1] for row in rows}, key=lambda r: (len(r), r)), 1)}
    histories: dict[int, list[tuple[str, str, int, float]]] = {}
    for row in rows:
        histories.setdefault(user_ids[row[0]], []).append(row)
    columns: dict[str, list[object]] = {n: [] for n in ("user", "item", "timestamp", "position", "rating", "split")}
    for user in sorted(histories):
        history = sorted(histories[user], key=lambda row: row[2])
        for position, row in enumerate(history):
            left = len(history) - position
            part = "train" if left > 2 or len(history) < 3 else ("valid" if left == 2 else "test")
            for name, value in zip(columns, (user, item_ids[row[1]], row[2], position, row[3], part), strict=True):
                columns[name].append(value)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "interactions.parquet", compression="zstd")


def tessera(path: Path, folder: Path) -> None:
    """The two stages of the workflow."""
    from pydantic import TypeAdapter

    from tessera.data.ingest import ingest
    from tessera.data.prepare import prepare
    from tessera.settings.sources.amazon_base import AmazonSource
    from tessera.settings.sources.base import ingest_settings, prepare_settings

    settings = TypeAdapter(AmazonSource).validate_python({**SECTION, "path": str(path)})
    ingest(ingest_settings(settings), folder / "raw")
    prepare(folder / "raw", folder, prepare_settings(settings))


def worker(which: str, path: Path, folder: Path) -> None:
    """One measured run; prints seconds and the largest memory."""
    # imports are not what is measured; pyarrow imports pandas, where there is one, at the first list it is given
    for module in ("pandas", "pydantic", "pyarrow.parquet", "tessera.data.prepare", "tessera.data.sources.amazon"):
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
    wall, cpu = time.perf_counter(), time.process_time()
    {"plain": plain, "tessera": tessera}[which](path, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "memory": peak}))


def measure(path: Path, folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Medians of each way, run in turn."""
    found: dict[str, list[dict[str, float]]] = {"plain": [], "tessera": []}
    for _ in range(repeats):
        for which, runs in found.items():
            command = [sys.executable, __file__, "--worker", which, str(path), str(folder / which)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(output.splitlines()[-1]))
            print(path.name, which, runs[-1], flush=True)
    return {
        which: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for which, runs in found.items()
    }


def same(folder: Path) -> int:
    """Rows of the two results, which must be equal."""
    import pyarrow.parquet as pq

    ours = pq.read_table(folder / "tessera" / "interactions.parquet").replace_schema_metadata(None)
    theirs = pq.read_table(folder / "plain" / "interactions.parquet").cast(ours.schema)
    if not ours.equals(theirs):
        raise SystemExit("the two results differ")
    return int(ours.num_rows)


def report(lines: list[str], arguments: argparse.Namespace) -> None:
    """Write the result page."""
    packages = ("polars", "pyarrow", "numpy", "msgspec", "isal")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)

    RESULT.parent.mkdir(parents=True, exist_ok=True)
    text = f"""# Raw reviews to a prepared dataset

{date.today()}, {arguments.machine}, shared with other work (trust the CPU seconds);
Python {platform.python_version()}, {versions}.

    OMP_NUM_THREADS=1 python benchmarks/ingest.py --rows {arguments.rows} --repeats {arguments.repeats}

Medians, the two in turn, each in a process of its own; imports are not counted. Both parse every line, drop exact
duplicates, apply the 5-core, number users and items, split leave-one-out and write Parquet; the interactions are equal
row by row. Tessera also checks every row and writes the raw log, `users`, `items` and `stats.json`.

| file | way | wall s | CPU s | peak MiB |
|---|---|---|---|---|
"""
    RESULT.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--machine", default=platform.machine(), help="what the page says of the machine")
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "FILE", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], Path(arguments.worker[1]), Path(arguments.worker[2]))
        return
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for suffix in ("json", "json.gz"):
            path = Path(name) / f"reviews.{suffix}"
            generate(path, arguments.rows)
            size = path.stat().st_size / 2**20
            found = measure(path, Path(name), arguments.repeats)
            label = f"{suffix}, {arguments.rows:,} rows, {size:,.0f} MiB, {same(Path(name)):,} kept"
            for which, values in found.items():
                numbers = " | ".join(f"{values[key]:.1f}" for key in ("wall", "cpu"))
                lines.append(f"| {label} | {which} | {numbers} | {values['memory']:,.0f} |")
            ratio = " | ".join(f"**{found['plain'][key] / found['tessera'][key]:.1f}x**" for key in ("wall", "cpu"))
            lines.append(f"| | ratio | {ratio} | |")
            path.unlink()
    report(lines, arguments)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
