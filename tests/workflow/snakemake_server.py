"""Snakemake, started many times: a process that has imported it forks for every call, which then skips the imports.

They are half of a dry run, and most of a small job (`warm_python`). A call is a line of JSON on standard input:
`arguments`, `folder`, `environment`, `output` (the file that takes what is said), `timeout` (seconds, after which it is
killed) and `jobs` (the socket of the server that forks its jobs; null: each starts a Python). The answer is a line with
its exit code.
Nothing of Tessera is imported before the fork: every call finds the code of its own folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import snakemake.cli
import warm_python


def _call(
    arguments: list[str], folder: str, environment: dict[str, str], output: str, timeout: int, jobs: str | None
) -> None:
    """In the forked process: what `python -m snakemake` does."""
    signal.alarm(timeout)
    said, nothing = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), os.open(os.devnull, os.O_RDONLY)
    sys.path[0] = folder
    if jobs:
        warm_python.use(jobs)
    program = snakemake.cli.__file__.replace("cli.py", "__main__.py")
    streams = [nothing, said, said]
    os._exit(warm_python.as_python(program, arguments, folder, environment, streams, snakemake.cli.main))


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            answers.detach()
            _call(**asked)
        _, status = os.waitpid(process, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
