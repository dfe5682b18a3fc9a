"""Latency of click-through models against the length of a history and the number of candidates.

Every model answers the same requests: one history, many candidates, random weights (what is computed does not depend on
what was learnt). `prepare` is what all candidates share, indexes included, and nothing of it is kept from request to
request; `score` is the rest. Times are CPU seconds of this process, one thread; a cell that would take longer than
--limit is left out. Histories repeat their items, as people do: a user's items are drawn by Zipf's law, so that new
ones get rarer; --distinct draws histories in which no item comes twice, the worst case for an index by item.

    python benchmarks/lifelong.py                                   # all: about 12 minutes
    python benchmarks/lifelong.py --lengths 1000 --candidates 100 --models eta r2led
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from line_plot import line_plot
from tessera.artifacts.codes import ABSENT, Part, SemanticIds
from tessera.ctr.batch import Catalogue
from tessera.ctr.models.base import ClickModel
from tessera.ctr.task import build
from tessera.settings.clicks.base import CTRModel

LENGTHS = [100, 1_000, 10_000, 100_000]
CANDIDATES = [1, 10, 100, 1_000]
SIZES = (256, 256, 256)
MODELS: dict[str, dict[str, Any]] = {
    "avg": {"model": "avg"},
    "din (last 50)": {"model": "din"},
    "din (all)": {"model": "din", "window": None},
    "sim_hard": {"model": "sim_hard"},
    "sim_soft": {"model": "sim_soft"},
    "eta (scan, as published)": {"model": "eta", "index": False},
    "eta": {"model": "eta"},
    "sdim": {"model": "sdim"},
    "twin": {"model": "twin"},
    "mirrn (scan, as published)": {"model": "mirrn", "index": False},
    "mirrn": {"model": "mirrn"},
    "r2led": {"model": "r2led"},
    "r2led (semantic)": {"model": "r2led", "views": "semantic"},
    "r2led (fuse)": {"model": "r2led", "mixing": "fuse"},
}


def make_catalogue(items: int) -> Catalogue:
    """Items with 200 categories and codes clustered as those of a catalogue: categories share first codes."""
    rng = np.random.default_rng(0)
    categories = np.concatenate([[0], rng.integers(1, 201, items)])
    first = (categories * 31 + rng.integers(0, 2, items + 1)) % 256
    second = (first * 37 + rng.integers(0, 16, items + 1)) % 256
    codes = np.stack([first, second, rng.integers(0, 256, items + 1)], 1).astype(np.int64)
    codes[0] = ABSENT
    books = {(0, level): torch.randn(256, 32) for level in range(3)}
    popularity = torch.ones(items + 1, dtype=torch.int64)
    ids = SemanticIds(codes, (Part("text", SIZES),))
    return Catalogue(items, torch.from_numpy(categories), 200, popularity, ids, books)


def make_history(length: int, items: int, distinct: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Items, oldest first, and ages in seconds."""
    rng = np.random.default_rng((seed, length))
    own = rng.permutation(items) + 1
    if distinct:
        history = own[:length]
    else:
        chances = 1 / np.arange(1, items + 1)
        history = own[rng.choice(items, length, p=chances / chances.sum())]
    ages = np.sort(rng.integers(60, 4 * 10**7, length))[::-1].copy()
    return torch.from_numpy(history), torch.from_numpy(ages)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


@torch.inference_mode()
def measure(
    model: ClickModel,
    histories: list[tuple[torch.Tensor, torch.Tensor]],
    candidates: int,
    items: int,
    limit: float,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Milliseconds of whole requests, and medians of their two parts; of CPU time unless another clock is given."""
    rng = np.random.default_rng(candidates)
    whole, first = [], []
    started = clock()
    while len(whole) < 3 or (len(whole) < 100 and clock() - started < limit / 10):
        history, ages = histories[len(whole) % len(histories)]
        wanted = torch.from_numpy(rng.integers(1, items + 1, candidates)).to(history.device)
        begin = clock()
        prepared = model.prepare(history, ages)
        middle = clock()
        model.score_all(prepared, wanted)
        whole.append(1000 * (clock() - begin))
        first.append(1000 * (middle - begin))
        if clock() - started > limit and len(whole) > 1:
            break
    kept = slice(1, None) if len(whole) > 3 else slice(None)  # the first warms up
    return {
        "p50": statistics.median(whole[kept]), "p99": quantile(whole[kept], 0.99), "requests": len(whole[kept]),
        "prepare": statistics.median(first[kept]),
        "score": statistics.median([a - b for a, b in zip(whole[kept], first[kept], strict=True)]),
    }  # fmt: skip


def growth(rows: list[dict[str, Any]], name: str, candidates: int, column: str) -> float | None:
    """The power of the length with which a time grows, from 1,000 to 100,000 events."""
    found = {row["length"]: row[column] for row in rows if row["model"] == name and row["candidates"] == candidates}
    ends = (1_000, 100_000)
    if any(end not in found for end in ends):
        return None
    return math.log(found[ends[1]] / found[ends[0]]) / math.log(ends[1] / ends[0])


def table(rows: list[dict[str, Any]], names: list[str], candidates: int, lengths: list[int]) -> str:
    """One number of candidates as Markdown."""
    head = ["model", *(f"{length:,} events" for length in lengths), "growth", "candidates/s at the longest"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(lengths) + 2)]
    found = {(row["model"], row["candidates"], row["length"]): row for row in rows}
    for name in names:
        cells, last = [], ""
        for length in lengths:
            row = found.get((name, candidates, length))
            parts = f"{row['p50']:.3g} / {row['p99']:.3g} ({row['prepare']:.3g} + {row['score']:.3g})" if row else "-"
            cells.append(parts)
            last = f"{1000 * candidates / row['p50']:,.0f}" if row else "-"
        power = growth(rows, name, candidates, "score")
        lines.append(f"| {name} | {' | '.join(cells)} | {'-' if power is None else f'{power:.2f}'} | {last} |")
    return "\n".join(lines)


def curve(rows: list[dict[str, Any]], names: list[str], candidates: int) -> str:
    """Median latency by length as a chart for a file of its own."""
    points = [
        {"name": r["model"], "x": r["length"], "y": r["p50"]}
        for r in rows if r["candidates"] == candidates and "scan" not in r["model"]
    ]  # fmt: skip
    titles = "events of the history", f"CPU milliseconds, {candidates} candidates"
    shown = [name for name in names if "scan" not in name]
    return line_plot(points, shown, titles, ("Latency by history", "median CPU time of a request"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--candidates", type=int, nargs="+", default=CANDIDATES)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=6.0, help="CPU seconds of a cell")
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--output", type=Path, help="folder for lifelong.svg and lifelong.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    items = max(given.items, max(given.lengths)) if given.distinct else given.items
    catalogue = make_catalogue(items)
    histories = {n: [make_history(n, items, given.distinct, seed) for seed in range(4)] for n in given.lengths}
    rows: list[dict[str, Any]] = []
    for name in given.models:
        torch.manual_seed(0)
        model = build(TypeAdapter(CTRModel).validate_python(MODELS[name]), catalogue).eval()
        assert isinstance(model, ClickModel)
        for length in given.lengths:
            seconds, before = 0.0, 1
            for candidates in given.candidates:
                if seconds > 0.05 and seconds * candidates / before > given.limit:
                    continue
                found = measure(model, histories[length], candidates, items, given.limit)
                seconds, before = found["p50"] / 1000, candidates
                rows.append({"model": name, "length": length, "candidates": candidates, **found})
        print(name, flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    unique = {n: round(statistics.mean(len(h.unique()) for h, _ in found)) for n, found in histories.items()}
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"torch {torch.__version__}, commit {commit.strip()}; {items:,} items; distinct items of a history: {unique}")
    print("CPU milliseconds of a request: p50 / p99 (medians of prepare + score); growth: of score, 1,000 to 100,000")
    for candidates in given.candidates:
        print(f"\n### {candidates:,} candidates\n\n{table(rows, given.models, candidates, given.lengths)}")
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "lifelong.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        middle = 100 if 100 in given.candidates else given.candidates[-1]
        (given.output / "lifelong.svg").write_text(curve(rows, given.models, middle), encoding="utf-8")


if __name__ == "__main__":
    main()
