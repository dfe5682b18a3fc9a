"""What is settled before the config is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "workflow/rules/start.smk"

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


TOLD = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
workflow = SimpleNamespace(is_main_process=True, execution_settings=None)
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"))
print(os.environ["GLIBC_TUNABLES"])
"""


def test_jobs_take_memory_alike_however_the_workflow_is_started() -> None:
    """By plain `snakemake` and by `./run`; and what somebody set stays."""

    def said(given: dict[str, str], *command: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
        done = subprocess.run(command, check=True, env=kept | given, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    by_snakemake = (sys.executable, "-c", TOLD, str(START))
    by_run = ("sh", "-c", '. tools/environment.sh && spare_the_kernel && echo "$GLIBC_TUNABLES"')
    expected = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=268435456:glibc.malloc.mmap_threshold=67108864"
    for command in (by_snakemake, by_run):
        assert said({}, *command) == expected
        assert said({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, *command) == "glibc.malloc.check=0"


ELSEWHERE = """
import sys
from pathlib import Path
from types import SimpleNamespace
start, main, *arguments = sys.argv[1:]
sys.argv[1:] = arguments
import snakemake.cli
workflow = SimpleNamespace(is_main_process=main == "main", execution_settings=None)
exec(compile(Path(start).read_text(), start, "exec"))
print(ELSEWHERE, DRY, sorted(CALLED.get("targets") or []))
"""


@pytest.mark.parametrize(
    ("process", "arguments", "said"),
    [
        ("main", ["--cores", "2"], "False False []"),
        ("main", ["--cores", "2", "--executor", "local", "a", "b"], "False False ['a', 'b']"),
        ("main", ["--profile", "slurm", "all"], "True False ['all']"),
        ("main", ["--cores", "1", "-n"], "True True []"),
        ("main", ["--no-option-of-snakemake"], "False False []"),
        ("job", ["--cores", "2"], "True False []"),
    ],
)
def test_whether_jobs_run_on_other_machines(process: str, arguments: list[str], said: str) -> None:
    """Quantised weights were refused on a login node without a GPU: Snakemake says where jobs run only later."""
    command = [sys.executable, "-c", ELSEWHERE, str(START), process, *arguments]
    done = subprocess.run(command, check=True, text=True, capture_output=True, cwd=ROOT)
    assert done.stdout.strip() == said
    assert not done.stderr
