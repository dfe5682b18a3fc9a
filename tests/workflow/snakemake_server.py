"""Snakemake, started many times: a process that has imported it forks for every call, which then skips the imports.

They are half of a dry run. A call is a line of JSON on standard input: `arguments`, `folder`, `environment`, `output`
(the file that takes what is said) and `timeout` (seconds, after which it is killed). The answer is a line with its exit
code.
Nothing of Tessera is imported as such before the fork: every call finds the code of its own folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import snakemake.cli
import snakemake.script

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src/tessera/artifacts"))
import fork_server

del sys.path[0]


def _call(arguments: list[str], folder: str, environment: dict[str, str], output: str, timeout: int) -> None:
    """In the forked process: what `python -m snakemake` does."""
    signal.alarm(timeout)
    said, nothing = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), os.open(os.devnull, os.O_RDONLY)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    program = snakemake.cli.__file__.replace("cli.py", "__main__.py")
    fork_server.as_python(program, arguments, [nothing, said, said], snakemake.cli.main)


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
