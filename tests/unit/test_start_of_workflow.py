"""What is settled before the config is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

START = Path(__file__).resolve().parents[2] / "workflow/rules/start.smk"

PROGRAM = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tessera.plan.params import Told
workflow = SimpleNamespace(is_main_process=True, execution_settings=None)
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


ENDING = """
import sys, threading
from pathlib import Path
from types import SimpleNamespace
from snakemake.scheduling.job_scheduler import JobScheduler
workflow = SimpleNamespace(is_main_process=True, execution_settings=None)
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"))
scheduler = object.__new__(JobScheduler)
scheduler._lock, scheduler._user_kill, scheduler._open_jobs = threading.Lock(), None, threading.Semaphore(0)
with scheduler._lock, scheduler._open_jobs._cond:
    scheduler.exit_gracefully(15, None)
assert scheduler._open_jobs.acquire(timeout=30)
assert scheduler._user_kill == "graceful"
"""


def test_an_end_that_is_asked_for_while_jobs_are_chosen_comes() -> None:
    """The handler of a signal runs within whatever held the locks of the scheduler, and may not wait for them."""
    subprocess.run([sys.executable, "-c", ENDING, str(START)], check=True, timeout=120)
