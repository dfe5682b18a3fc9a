"""The benchmark for a GPU runs on a CPU at small sizes, without what a CUDA image lacks, and ends in time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    absent = ("polars", "snakemake", "jinja2", "altair", "vl_convert", "faiss")
    return None if name.split(".")[0] in absent else find(name, path, target)
PathFinder.find_spec = find_spec
"""


def test_it_writes_a_row_at_once_and_ends_within_its_minutes(tmp_path: Path) -> None:
    # a CUDA image has neither polars nor snakemake: every process of the program starts without them
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKED)
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT / 'src'}", "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--minutes", "0.3"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    spent = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert spent < 21, f"took {spent:.0f} s of 18"

    head, *rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    assert {"card", "versions", "command", "date"} <= head["head"].keys()
    measured = [row for row in rows if not row["error"]]
    late = ("not reached in time", "given up: the time was over")
    broken = [row for row in rows if row["error"] and not row["error"].startswith(late)]
    assert not broken, (broken, (out / "gpu.log").read_text()[-3000:])
    assert measured, "no row was measured"
    for row in measured:
        assert row["rate"] > 0
        assert row["seconds"] > 0
        assert row["gib"] > 0
    # every row of the plan stands there once, measured or not
    names = [(row["section"], row["case"], row["side"]) for row in rows]
    assert len(names) == len(set(names))
    assert {section for section, _, _ in names} == {
        "training", "evaluation", "language", "decoding", "RQ-VAE", "MME-SID", "R2LED",
    }  # fmt: skip

    table = (out / "gpu.md").read_text()
    cells = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(cells) == 1 + len(rows)
    assert {line.count(" | ") for line in cells} == {cells[0].count(" | ")}
    assert head["head"]["command"] in table


ROWS = """
import os, time
from dataclasses import dataclass, field
from gpu_rows_of_the_benchmark import Found, Place, Row
SECTIONS = {"one": 0.5, "two": 0.5}
def fine(place):
    return Found(10.0, 0.1)
def half(place):
    return Found(5.0, 0.2)
def ends(place):
    os._exit(7)
def hangs(place):
    time.sleep(1000)
def fails(place):
    raise MemoryError("no room")
def all_rows():
    rows = [("one", "plain", half), ("one", "fails", fails), ("one", "ends", ends), ("one", "hangs", hangs)]
    rows += [("two", "ours", fine), ("one", "ours", fine)]
    return [Row(s, "case", side, "steps", run, plain=side == "plain", limit=2.0) for s, side, run in rows]
"""


def test_a_row_that_fails_ends_its_process_or_does_not_come_back_costs_no_other(tmp_path: Path) -> None:
    for name in ("gpu.py", "device_timing.py"):
        shutil.copy(ROOT / "benchmarks" / name, tmp_path)
    shutil.copy(ROOT / "benchmarks" / "gpu_rows.py", tmp_path / "gpu_rows_of_the_benchmark.py")
    (tmp_path / "gpu_rows.py").write_text(ROWS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(tmp_path / "gpu.py"), "--device", "cpu", "--minutes", "2", "--out", "out"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "gpu.jsonl").read_text().splitlines()]
    rows = {(row["section"], row["side"]): row for row in lines[1:]}
    assert rows["one", "fails"]["error"] == "MemoryError: no room"
    assert rows["one", "ends"]["error"] == "the process ended with 7; see gpu.log"
    assert rows["one", "hangs"]["error"].startswith("given up after 2 s")
    # measured by the third process, and compared with what the first one found
    assert rows["one", "ours"]["ratio"] == 2.0
    assert rows["two", "ours"]["rate"] == 10.0
    assert rows["two", "ours"]["ratio"] is None, "its section has no plain form"
