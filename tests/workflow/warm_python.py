"""Jobs of tests, forked from a process that has imported what they need: importing it is most of what a small job does.

`python warm_python.py SOCKET` serves until its standard input ends. `use(SOCKET)`, in the process that is Snakemake,
lets scripts run there. Nothing of Tessera is imported before the fork, so every job reads the code of its own folder.
The one whole run that most tests look at (`finished`) starts its jobs as users do.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], object]

PRELOADED = ("torch", "pyarrow.parquet", "pyarrow.compute", "pyarrow.dataset", "scipy.stats", "pydantic", "polars",
             "peft", "altair", "vl_convert", "networkx", "snakemake.script")  # fmt: skip


def as_python(
    program: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int], work: Work
) -> int:
    """In a process that was forked: do the work as a Python that is started with a program; gives its exit code.

    Args:
        folder: the working directory.
        streams: file descriptors that take the place of standard input, output and error.
    """
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for target, source in enumerate(streams):
        os.dup2(source, target)
    sys.argv = [program, *arguments]
    code: Any = 0
    try:
        work()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def _job(call: socket.socket, script: str, folder: str, environment: dict[str, str], said: list[int]) -> None:
    """In the forked process: what `python SCRIPT` does; its exit code is the last thing that it says."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.path[0] = str(Path(script).parent)
    sys.path[1:1] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    call.sendall(f"{os.getpid()}\n".encode())
    streams = [os.open(os.devnull, os.O_RDONLY), *said]
    code = as_python(script, [], folder, environment, streams, lambda: runpy.run_path(script, run_name="__main__"))
    call.sendall(f"{code}\n".encode())
    os._exit(0)


def serve(path: str) -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        print("ready", flush=True)
        # the server is gone when who started it is
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            call, _ = server.accept()
            text, said, *_ = socket.recv_fds(call, 2**20, 2)
            asked = json.loads(text)
            if os.fork() == 0:
                server.close()
                _job(call, asked["script"], asked["folder"], asked["environment"], said)
            for one in said:
                os.close(one)
            call.close()


def use(path: str) -> None:
    """Let the Python scripts of this Snakemake run in processes that the server forks."""
    from snakemake import script
    from snakemake.benchmark import benchmarked

    def run(self: script.PythonScript, fname: str, edit: bool = False) -> None:
        asked = {"script": str(fname), "folder": str(Path.cwd()), "environment": dict(os.environ)}
        with socket.socket(socket.AF_UNIX) as call:
            call.connect(path)
            socket.send_fds(call, [json.dumps(asked).encode()], [1, 2])
            with call.makefile("r") as answers:
                pid = int(answers.readline())
                with benchmarked(pid, self.bench_record) if self.bench_record else contextlib.nullcontext():
                    code = int(answers.readline() or -signal.SIGKILL)
        if code:
            raise subprocess.CalledProcessError(code, f"{sys.executable} {fname}")

    script.PythonScript.execute_script = run


if __name__ == "__main__":
    serve(sys.argv[1])
