"""After a run was killed (kill -9, a lost session, a power cut): take its lock away, unless it is still at work.

    python tools/unlock.py      # in the folder of the run; `./run` does this by itself

Snakemake locks its working directory and a killed run cannot unlock it. A lock is stale when no process on this
machine works in the folder. A run on another machine that shares the folder cannot be seen from here: see
docs/slurm.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil


def workers(folder: Path) -> list[psutil.Process]:
    """Processes of Snakemake, and of the jobs that it started, that work in a folder."""
    found = []
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            works = process.pid not in own and Path(process.cwd()) == folder
        except (psutil.Error, OSError):
            continue
        if works and ("snakemake" in command) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def main() -> int:
    """Unlock a stale lock; 1 when the lock is held."""
    locks = Path(".snakemake/locks")
    if not locks.is_dir() or not any(locks.iterdir()):
        return 0
    if held := workers(Path.cwd()):
        ids = ", ".join(str(process.pid) for process in held)
        print(f"ERROR: a run is at work in {Path.cwd()} (process {ids}); wait for it, or end it", file=sys.stderr)
        return 1
    print("The last run was killed: taking its lock away.", file=sys.stderr)
    for lock in locks.iterdir():
        lock.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
