"""GPUs of one machine shared among the jobs of a run: each job computes on devices that no other one has.

A device is held by a lock on a file, which the system releases however its process ends. A job that Slurm gave its
devices keeps them, and nothing is done here. No library of a GPU is asked: this runs before any of them looks at its
devices.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
WAIT = 1.0
"""Seconds between two looks for a free device."""


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """The devices that this process may use: those of `CUDA_VISIBLE_DEVICES`, else all of the machine."""
    named = os.environ.get(VISIBLE)
    if named is None:
        # CUDA counts those that are there from 0; a container may keep the numbers that they have on its host
        there = [path for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()]
        return [str(number) for number in range(len(there))]
    names: list[str] = []
    for name in map(str.strip, named.split(",")):
        if not name or name.startswith("-"):  # as CUDA reads it: what follows a device that is none is not seen
            break
        names.append(name)
    return names


@contextmanager
def own_gpus(count: int, tell: Callable[[str], object]) -> Iterator[list[str]]:
    """Hold `count` devices, waiting until so many are free, and let this process and its children see these alone.

    Nothing is done where none is asked for, where the machine has none, and where Slurm gave the job its devices: so
    many as it asks for. Jobs of a run inside one allocation share what that has.

    Args:
        count: how many.
        tell: gets a line where it waits, and which devices it has.
    Raises:
        ValueError: more are asked for than there are, or the folder of locks is another user's.
    """
    devices = visible_gpus()
    if not count or not devices or ("SLURM_JOB_ID" in os.environ and len(devices) <= count):
        yield devices
        return
    if count > len(devices):
        raise ValueError(f"resources: gpu: {count} are asked for, and this machine shows {len(devices)} ({VISIBLE})")
    before = os.environ.get(VISIBLE)
    with ExitStack() as held:
        taken = _take(devices, count, held)
        if taken is None:
            most = len(devices)
            tell(f"waits for {count} of {most} GPUs; snakemake --resources gpu={most} starts no more jobs")
        while taken is None:
            time.sleep(WAIT)
            taken = _take(devices, count, held)
        os.environ[VISIBLE] = ",".join(taken)
        tell(f"computes on GPU {', '.join(taken)}")
        try:
            yield taken
        finally:
            os.environ.pop(VISIBLE)
            os.environ.update({VISIBLE: before} if before is not None else {})


def _take(devices: list[str], count: int, held: ExitStack) -> list[str] | None:
    """Locks on so many devices, or on none: jobs that hold some and wait for more could wait for each other."""
    # each allocation of Slurm may count its devices from 0
    name = "-".join(filter(None, ["tessera-gpus", str(os.getuid()), os.environ.get("SLURM_JOB_ID")]))
    folder = Path(tempfile.gettempdir(), name)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # others may write below /tmp, too
        raise ValueError(
            f"{folder}: is not a folder of your own, expected one for the locks of GPUs; set TMPDIR to another"
        )
    with ExitStack() as tried:
        taken: list[str] = []
        for device in devices:
            file = tried.enter_context((folder / re.sub(r"[^\w.-]", "_", device)).open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            taken.append(device)
            if len(taken) == count:
                held.enter_context(tried.pop_all())
                return taken
    return None
