"""After a run was killed (kill -9, a lost session, a power cut): take its lock away, unless it is still at work.

    python tools/unlock.py      # in the folder of the run; `./run` does this by itself

Snakemake locks its working directory and a killed run cannot unlock it. A lock is stale when it is one's own and no
process on this machine works in the folder: what other users run cannot be seen, so their locks are theirs to take. A
run on another machine that shares the folder cannot be seen from here: see docs/slurm.md.

What a killed run was writing goes with its lock: half-written files, and folders of `state/` that hold nothing.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tessera.artifacts.files import half_written

_PLACES = ("state", "results", "data/downloads", ".snakemake/tessera")
_QUIET_SECONDS = 600
"""A job on another machine may be writing: a file that grew a moment ago is left alone."""


def workers(folder: Path) -> list[psutil.Process]:
    """Processes of Snakemake, and of the jobs that it started, that work in a folder."""
    processes = []
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            program, *arguments = process.cmdline() or [""]
            works = process.pid not in own and Path(process.cwd()) == folder
        except (psutil.Error, OSError):
            continue
        # not what looks at a file of Snakemake's, such as a log
        runs = "python" in Path(program).name and any(
            "snakemake" in argument or argument.endswith("fork_server.py") for argument in arguments
        )
        if works and (runs or Path(program).name == "snakemake") and process.status() != psutil.STATUS_ZOMBIE:
            processes.append(process)
    return processes


def others(locks: list[Path]) -> set[str]:
    """Names of other users whose locks these are."""
    names = set()
    for lock in locks:
        owner = lock.stat().st_uid
        if owner != os.geteuid():
            try:
                names.add(pwd.getpwuid(owner).pw_name)
            except KeyError:
                names.add(str(owner))
    return names


def clean(folder: Path, younger: float = _QUIET_SECONDS) -> int:
    """Remove what killed runs left half-written, and empty folders of `state/`; how many there were.

    Args:
        younger: seconds; what changed since then is left alone.
    """
    removed = 0
    now = time.time()
    state = folder / "state"
    folders = [path for path in state.glob("**/") if path != state and now - path.stat().st_mtime >= younger]
    for place in _PLACES:
        for path in half_written(folder / place):
            with suppress(OSError):
                if now - path.stat().st_mtime >= younger:
                    path.unlink()
                    removed += 1
    for path in sorted(folders, reverse=True):
        with suppress(OSError):  # it holds something, or is another's
            path.rmdir()
            removed += 1
    return removed


def main(folder: Path = Path()) -> int:
    """Unlock a stale lock, and clean up after it; 1 when the lock is held."""
    folder = folder.resolve()
    kept = folder / ".snakemake/locks"
    locks = [*kept.iterdir()] if kept.is_dir() else []
    held = workers(folder)
    if locks and held:
        ids = ", ".join(str(process.pid) for process in held)
        print(f"ERROR: a run is at work in {folder} (process {ids}); wait for it, or end it", file=sys.stderr)
        return 1
    if users := others(locks):
        print(
            f"ERROR: {folder} is locked by a run of {', '.join(sorted(users))}, whose processes cannot be seen from "
            "here. Ask whether it is at work; if it is not: snakemake --unlock",
            file=sys.stderr,
        )
        return 1
    if locks:
        print("The last run was killed: taking its lock away.", file=sys.stderr)
        for lock in locks:
            lock.unlink()
    if not held:
        clean(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
