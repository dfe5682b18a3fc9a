"""A stage in several processes, one a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


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
