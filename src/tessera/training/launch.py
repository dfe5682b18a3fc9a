"""A stage in several processes, one a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tessera.artifacts.logs import stage


def run_processes(module: str, job: dict[str, Any], processes: int) -> None:
    """Run `python -m module JOB` in several processes that know of one another (torch.distributed.run).

    Raises:
        ChildProcessError: one of them failed; its log says why.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launched = subprocess.Popen([*command, "-m", module, json.dumps(job)])
    try:
        failed = launched.wait()
    except BaseException:
        # asked to end: so is the launcher, which ends its workers; a killed one would leave them running
        launched.terminate()
        launched.wait()
        raise
    if failed:
        raise ChildProcessError(f"training in {processes} processes failed with exit code {failed}")


@contextmanager
def one_of_processes() -> Iterator[dict[str, Any]]:
    """The stage of one of `run_processes`' processes; gives the job of its command line.

    The group is left when the work is done. Its threads hold tensors of the last exchange for a moment, and one that
    drops them while the interpreter is ending aborts a process whose work is done and written.
    """
    job = json.loads(sys.argv[1])
    with stage(job["log"], job["threads"], 0):
        yield job
        # after `stage`, as all of torch: a job of one process does not load it
        from torch import distributed

        if distributed.is_initialized():
            distributed.barrier()  # nobody is gone while another still waits for its words
            distributed.destroy_process_group()
