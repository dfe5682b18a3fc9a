"""A stage in several processes, one a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from tessera.artifacts.logs import stage
from tessera.training.errors import TrainingError

FAILED = "TESSERA_FAILED"
"""The environment variable that names the file in which a process says why it cannot go on."""


def run_processes(module: str, job: dict[str, Any], processes: int) -> None:
    """Run `python -m module FILE` in several processes that know of one another (torch.distributed.run).

    FILE holds the job.

    Raises:
        TrainingError: one of them says that training cannot go on.
        ChildProcessError: one of them failed in another way; its log says why.
    """
    command = [sys.executable, "-m", __name__, str(os.getpid()), "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
        reason, written = Path(folder, "failed"), Path(folder, "job.json")
        written.write_text(json.dumps(job), encoding="utf-8")  # an argument has 128 KiB at most
        launched = subprocess.Popen([*command, "-m", module, str(written)], env={**os.environ, FAILED: str(reason)})
        try:
            failed = launched.wait()
        except BaseException:
            # asked to end: so is the launcher, which ends its workers
            launched.terminate()
            launched.wait()
            raise
        if failed and reason.is_file():
            raise TrainingError(reason.read_text(encoding="utf-8"))
    if failed:
        raise ChildProcessError(f"training in {processes} processes failed with exit code {failed}")


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone, at once and without a word.

    One that is killed cannot end what it started, which would go on and write over the results of whoever comes next.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


@contextmanager
def one_of_processes() -> Iterator[dict[str, Any]]:
    """The stage of one of `run_processes`' processes; gives the job, of the file that its command line names.

    The group is left when the work is done. Its threads hold tensors of the last exchange for a moment, and one that
    drops them while the interpreter is ending aborts a process whose work is done and written.
    """
    end_with(os.getppid())
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with stage(job["log"], job["threads"], 0):
        try:
            yield job
        except TrainingError as error:
            if reason := os.environ.get(FAILED):
                Path(reason).write_text(str(error), encoding="utf-8")
            raise
        # after `stage`, as all of torch: a job of one process does not load it
        from torch import distributed

        if distributed.is_initialized():
            distributed.barrier()  # nobody is gone while another still waits for its words
            distributed.destroy_process_group()


def main() -> None:
    """The launcher: `torch.distributed.run` that ends with the process whose number is its first argument."""
    from torch.distributed.run import main as run

    end_with(int(sys.argv[1]))
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
