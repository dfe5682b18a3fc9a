"""The logger plugin, which Snakemake imports whenever it starts."""

import subprocess
import sys

import pytest


def test_it_brings_no_library() -> None:
    """The Snakefile says which one is meant; one that is imported before would hide edits of the folder's own code."""
    code = "import sys, snakemake_logger_plugin_tessera; print([n for n in sys.modules if n.startswith('tessera')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ENDS = "Will exit after finishing currently running jobs (scheduler)."
INTERRUPTED = "Terminating processes on user request, this might take some time."
CLOSING = "The run was asked to end: 1 of 3 jobs are done, and the same command goes on."
PROGRAM = """
import sys
from logging import ERROR, INFO, Formatter, LogRecord
from types import SimpleNamespace
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_tessera import LogHandler

handler = LogHandler(SimpleNamespace(dryrun=False, show_failed_logs=False), None)
handler.setFormatter(Formatter("%(message)s"))


def tell(text="", level=INFO, **fields):
    record = LogRecord("snakemake", level, "", 0, text, (), None)
    vars(record).update({"event": None, **fields})
    handler.emit(record)


tell(event=LogEvent.RUN_INFO, stats={"total": 3})
for job in (1, 2):
    tell(event=LogEvent.JOB_INFO, jobid=job, rule_name="train", log=[], wildcards={"seed": job}, threads=1)
tell(event=LogEvent.JOB_FINISHED, job_id=1)
print("Epoch 7: what a job says", file=sys.stderr)
for said in sys.argv[1:]:
    if said.startswith("died"):
        tell(f"Command {said}.", ERROR, event=LogEvent.ERROR)
        tell(said, ERROR, event=LogEvent.JOB_ERROR, jobid=2, rule_name="train", log=[])
    else:
        tell(said, ERROR if said.startswith("At least") else INFO)
handler.close()
"""
FAILED = ["died with <Signals.SIGINT: 2>", "At least one job did not complete successfully."]


@pytest.mark.parametrize(
    ("events", "said", "unsaid"),
    [
        ([ENDS, ENDS, FAILED[1]], [ENDS, CLOSING], ["At least", "said last"]),
        ([INTERRUPTED, *FAILED], [INTERRUPTED, CLOSING], ["FAILED", "At least", "said last"]),
        ([FAILED[0], ENDS, FAILED[1]], [ENDS, "FAILED: train 2 (SIGINT"], ["asked to end"]),
        (FAILED, ["FAILED: train 2 (SIGINT"], ["asked to end"]),
    ],
    ids=["graceful", "at once", "after a failure", "a failure"],
)
def test_a_run_that_is_asked_to_end_has_not_failed(events: list[str], said: list[str], unsaid: list[str]) -> None:
    """It told of a job that did not complete, and twenty lines of curves or of a traceback."""
    command = [sys.executable, "-c", PROGRAM, *events]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    for part in said:
        assert shown.count(part) == 1, shown
    for part in unsaid:
        assert part not in shown
