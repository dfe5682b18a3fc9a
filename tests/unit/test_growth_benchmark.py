"""The benchmark over the size of a log runs its stages one after the other, on the product's own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["generate", "ingest", "prepare", "table in shards", "table of vectors", "quantise RQ-k-means"]


def test_tables_and_semantic_ids_are_of_every_item_and_what_was_measured_stays(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/growth.py"), "--rows", "3000", "--keep", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    for more in (["--stages", *STAGES], ["--stages", "--charts", str(tmp_path)]):
        done = subprocess.run(
            [*command, *more], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert not done.stderr, done.stderr
    # the second call ran nothing, and told what the first one had kept
    assert done.stdout.count(" GiB |") == len(STAGES)
    assert "| judge SASRec | not run |" in done.stdout
    folder = tmp_path / "3000"
    measured = [json.loads(line) for line in (folder / "measured.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in measured] == STAGES
    assert all(row["user"] + row["kernel"] > 0 < row["GiB"] for row in measured)
    for name in ("hidden-table.parquet", "vectors-table.parquet", "rq_kmeans/codes.parquet"):
        assert pq.read_metadata(folder / name).num_rows == 300, name
    for chart in ("seconds", "memory"):
        assert "quantise RQ-k-means" in (tmp_path / f"growth-{chart}.svg").read_text()
