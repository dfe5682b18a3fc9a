"""What is settled before the config is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

START = Path(__file__).resolve().parents[2] / "workflow/rules/start.smk"

PROGRAM = """
import sys
from pathlib import Path
from tessera.plan.jobs import Told
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"))
from snakemake.persistence.file import FilePersistence
store = object.__new__(FilePersistence)
values = ["text", Told("long", "identity"), 3, 0.5, None, True, ["a", 1], object()]
kept = [store._serialize_param(value) for value in values]
assert "pandas" not in sys.modules
assert kept == [store._serialize_param_pandas(value) for value in values]
assert "pandas" in sys.modules
"""


def test_params_are_recorded_as_ever_and_without_pandas() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(START)], check=True)
