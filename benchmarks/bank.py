"""What LEMUR's memory bank takes, in memory and mapped from files: own memory, a step's reads and writes, a checkpoint.

    OMP_NUM_THREADS=1 python benchmarks/bank.py --items 1000000 10000000

A bank of so many items is filled; a step writes 2,000 drawn items and reads 20,000 (the median of 50); then a
checkpoint of the bank is written. Own memory is what no file backs (RssAnon): pages of a mapped file are the system's
to drop. Each cell is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WIDTH, WRITTEN, READ = 128, 2_000, 20_000


def own_memory() -> float:
    """GiB of this process that no file backs."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon")]
    return int(line.split()[1]) / 2**20


def measure(items: int, mapped: bool, folder: Path) -> dict[str, float]:
    """One cell, in this process."""
    import torch

    from tessera.content.bank import MemoryBank
    from tessera.content.mapped import pieces
    from tessera.training.checkpoint import Trained, save_checkpoint

    torch.set_num_threads(1)
    before = own_memory()
    bank = MemoryBank(items, WIDTH, mapped=mapped)
    bank.place(folder / "state")
    began = sum(os.times()[:2])
    for some in pieces(items):
        ids = torch.arange(some.start, some.stop) + 1
        bank.write(ids, torch.randn(len(ids), WIDTH), 0)
    filled = sum(os.times()[:2]) - began
    own = own_memory() - before
    os.sync()  # else the disk is still busy with what was filled
    steps = []
    for step in range(1, 51):
        written, read = torch.randint(1, items + 1, (WRITTEN,)), torch.randint(0, items + 1, (READ,))
        vectors, started = torch.randn(WRITTEN, WIDTH), time.perf_counter()
        bank.write(written, vectors, step)
        bank.read(read, step)
        steps.append(time.perf_counter() - started)
    started = time.perf_counter()
    save_checkpoint(folder / "checkpoint.safetensors", Trained(bank), [], {}, {"step": 50})
    return {
        "own GiB": own, "fill, CPU s": filled, "step, ms": 1000 * statistics.median(steps),
        "checkpoint, s": time.perf_counter() - started, "own GiB after it": own_memory() - before,
    }  # fmt: skip


def main() -> None:
    """All cells in turn, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--mapped", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        print(json.dumps(measure(given.items[0], given.mapped, given.folder)))
        return
    header: list[str] = []
    for items in given.items:
        for mapped in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--items", str(items), "--folder", folder]
                done = subprocess.run(command + ["--mapped"] * mapped, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            if not header:
                header = ["items", "bank", *row]
                print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|")
            cells = [f"{items:,}", "mapped" if mapped else "in memory", *(f"{value:.2f}" for value in row.values())]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
