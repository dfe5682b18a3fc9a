"""A process that asked for it uses pyarrow and loads no pandas; who wants pandas after it has it."""

import subprocess
import sys

PROGRAM = """
import sys
from tessera.artifacts.arrow import without_pandas
before = list(sys.meta_path)
without_pandas()
assert sys.meta_path == before
import numpy as np, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
table = pa.table({"item": np.arange(3), "title": ["a", None, "b"]})
pq.write_table(table, sys.argv[1])
again = pq.read_table(sys.argv[1])
assert again.equals(table)
assert pc.unique(again["title"]).to_pylist() == ["a", None, "b"]
print("pandas" in sys.modules)
import pandas as pd
print(pd.DataFrame(again.to_pydict())["item"].sum())
without_pandas()
"""


def test_pyarrow_works_without_pandas(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "t.parquet")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "3"]


def test_every_job_is_spared_it(tmp_path):
    program = """
import sys
from tessera.artifacts.logs import stage
with stage(None):
    import pyarrow as pa
    pa.array([1.5, None])
    print("pandas" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
