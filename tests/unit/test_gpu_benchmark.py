"""The benchmark for a GPU runs on a CPU at small sizes, without what a CUDA image lacks, and ends in time."""

from __future__ import annotations

import json
import os
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
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--minutes", "0.5"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    spent = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert spent < 33, f"took {spent:.0f} s of 30"

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
