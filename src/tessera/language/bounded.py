"""Work on texts that came with a model, under bounds of time, memory and size."""

from __future__ import annotations

import json
import math
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS = 10
"""Most processor time; at most six times as long by the clock."""
MEMORY = 512 << 20
"""Most bytes beyond those of the process."""
LONGEST = 1_000_000
"""Most characters of the text that is made."""


class BoundError(ValueError):
    """The work took more than it may."""


class RefusedError(ValueError):
    """The work itself raised an error."""


def bounded(work: Callable[[], str], what: str) -> str:
    """The text that `work` makes, in a process of its own that is ended when it takes too much.

    A loop without end, or a text that doubles until memory is full, cannot be stopped from within: Python hands a
    power or a repetition to C, and takes no signal until it is done.

    Args:
        work: makes a text; it must not use a GPU, or threads.
        what: the subject of messages.
    Raises:
        BoundError: it takes more than `SECONDS`, `MEMORY` or `LONGEST`.
        RefusedError: what it raised.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: none of theirs is needed in the child
        child = os.fork()
    if child == 0:
        _run(work, reading, writing)
    os.close(writing)
    try:
        answer = _read(reading, time.monotonic() + 6 * SECONDS)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        made = json.loads(answer)
    except ValueError:
        made = {}
    if "refused" in made:
        raise RefusedError(made["refused"])
    if "text" not in made:
        raise BoundError(
            f"{what} takes more than {SECONDS} s, {MEMORY >> 20} MiB or {LONGEST:,} characters: does it loop for ever?"
        )
    return str(made["text"])


def _run(work: Callable[[], str], reading: int, writing: int) -> None:
    """The child: it never returns."""
    try:
        os.close(reading)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for kind, most in ((resource.RLIMIT_CPU, math.ceil(SECONDS)), (resource.RLIMIT_AS, _held() + MEMORY)):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        try:
            made = {"text": work()}
            if len(made["text"]) > LONGEST:
                made = {}
        except MemoryError:
            made = {}
        except Exception as error:  # whatever a template raises
            made = {"refused": f"{type(error).__name__}: {str(error)[:300]}"}
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(made).encode())
    finally:
        os._exit(0)


def _held() -> int:
    """Bytes of address space that the process has."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 1 << 46  # not Linux: memory is not bounded


def _read(pipe: int, end: float) -> bytes:
    """What comes through the pipe until it is closed, or until `end`."""
    parts: list[bytes] = []
    ready = select.poll()
    ready.register(pipe, select.POLLIN | select.POLLHUP)
    while (left := end - time.monotonic()) > 0 and ready.poll(1000 * left):
        if not (part := os.read(pipe, 1 << 16)):
            return b"".join(parts)
        parts.append(part)
    return b""
