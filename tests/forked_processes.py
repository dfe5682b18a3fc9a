"""Processes that share a step, forked from one that has imported torch, which takes longer than a small training.

The launcher itself is held by tests/unit/training/test_launch.py and by one training of each kind.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = ["torch", "torch.distributed", "accelerate", "peft", "pyarrow.parquet", "scipy.sparse", "pydantic"]
"""Nothing of Tessera: what a test patches before a start is what its processes find."""


def _member(
    function: Callable[..., None], arguments: tuple[Any, ...], rank: int, world: int, port: int, said: str
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        function(*arguments)
        from torch import distributed

        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
    except BaseException:
        Path(said).write_text(traceback.format_exc(), encoding="utf-8")
        raise


def share(world: int, function: Callable[..., None], *arguments: Any, timeout: float = 300) -> None:
    """Call a function of a module in `world` processes that know of one another, as `torch.distributed.run` would.

    Raises:
        ChildProcessError: one of them failed; says how.
        TimeoutError: they did not end in `timeout` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, str(rank)) for rank in range(world)]
        members = [
            context.Process(target=_member, args=(function, arguments, rank, world, port, str(said[rank])))
            for rank in range(world)
        ]
        for member in members:
            member.start()
        last = time.monotonic() + timeout
        try:
            while any(member.is_alive() for member in members) and time.monotonic() < last:
                if any(member.exitcode for member in members):
                    break
                members[0].join(0.02)
                members[-1].join(0.02)
            late = time.monotonic() >= last
        finally:
            codes = [member.exitcode for member in members]
            for member in members:
                member.kill()
                member.join()
        if any(codes):
            raise ChildProcessError("\n".join(file.read_text(encoding="utf-8") for file in said if file.exists()))
        if late:
            raise TimeoutError(f"{world} processes did not end in {timeout} seconds")


def _module(module: str, job: str) -> None:
    sys.argv = [module, job]
    runpy.run_module(module, run_name="__main__")


def run_processes(module: str, job: dict[str, Any], processes: int) -> None:
    """As `tessera.training.launch.run_processes`, which it takes the place of: the module without its launcher."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "job.json")
        written.write_text(json.dumps(job), encoding="utf-8")
        share(processes, _module, module, str(written))
