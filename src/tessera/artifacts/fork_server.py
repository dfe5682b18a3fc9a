"""A process that has imported what jobs need, and from which they are forked: a small job is mostly its imports.

torch takes two CPU seconds, language models six, scipy and scikit-learn one and a half. A job that is forked is
otherwise as one that is started: its own working directory, environment, output, modules of this library and exit
code. Linux alone can do it safely.

This file is also the program of that process. It imports nothing of this library, so that every job reads the code of
its own folder as it is when the job starts.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

SERVERS = "TESSERA_FORK_SERVERS"
"""A variable: `none` starts a Python for every job; `torch=7,language=9`: descriptors of servers started elsewhere."""

TORCH = ("torch", "numpy", "pyarrow.parquet", "pyarrow.compute", "pydantic", "safetensors.torch")
LANGUAGE = (
    *TORCH, "peft", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", "tokenizers", "PIL.Image",
)  # fmt: skip
SCIENCE = (
    "numpy", "pyarrow.parquet", "pyarrow.compute", "pydantic", "scipy.stats", "sklearn.decomposition",
    "sklearn.linear_model", "sklearn.manifold", "altair", "networkx",
)  # fmt: skip
"""What jobs import in any case; a module that is not installed is left out."""
TORCH_SCRIPTS = {
    "train.py", "trial.py", "evaluate.py", "oracle.py", "corrupt.py", "quantize.py", "health.py", "recommend.py",
    "export.py", "content.py", "train_ctr.py", "evaluate_ctr.py", "oracle_ctr.py",
}  # fmt: skip
LANGUAGE_SCRIPTS = {"pretrain.py", "caption.py", "caption_part.py", "tune.py", "embed.py"}
SCIENCE_SCRIPTS = {"diagnose.py", "atlas.py", "report.py"}
"""All others are quicker where a Python is started for them, and take less memory."""
FAMILIES = {
    "torch": (TORCH, TORCH_SCRIPTS), "language": (LANGUAGE, LANGUAGE_SCRIPTS), "science": (SCIENCE, SCIENCE_SCRIPTS),
}  # fmt: skip
"""Of each server, what it imports and the scripts whose jobs it forks."""

Handlers = dict[signal.Signals, Any]

_GPU = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LARGEST = 2**20
_END_WITH_PARENT, _NAME = 1, 15
"""Operations of `prctl`."""


class ForkServerError(RuntimeError):
    """No job was forked; it can be started as a Python of its own."""


def can_fork() -> bool:
    """Whether jobs of this machine may be forked; a GPU's driver does not outlive a fork once it was asked anything."""
    return sys.platform == "linux" and not any(map(os.path.exists, _GPU))


def script_name(script: Path) -> str:
    """Of the copy `tmpa1b2c3.train.py` that Snakemake makes of a script: `train.py`."""
    return script.name.partition(".")[2] or script.name


@dataclass(frozen=True)
class ForkedJob:
    """A job that was forked and waits to begin, so that it can be watched from its start."""

    pid: int
    _channel: IO[str]

    def run(self) -> int:
        """Let it begin; its exit code when it has ended, or minus the number of the signal that ended it."""
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._channel.write("\n")
            self._channel.flush()
        return int(self._channel.readline() or -signal.SIGKILL)


class ForkServer:
    """Forks jobs; started with the first one, and ended with this process."""

    def __init__(self, modules: Sequence[str], requests: socket.socket | None = None) -> None:
        """
        Args:
            modules: names of what is imported before the fork.
            requests: of a server that is started already.
        """
        self.modules = modules
        self._lock = threading.Lock()
        self._requests = requests
        self._process: subprocess.Popen[bytes] | None = None

    def requests(self) -> socket.socket:
        """Where jobs are asked for; any process that holds it may ask."""
        with self._lock:
            if self._requests is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, __file__, str(theirs.fileno()), *self.modules],
                        stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                        env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                    )  # fmt: skip
                self._requests = ours
            return self._requests

    @contextmanager
    def job(self, script: str | Path, environment: Mapping[str, str], folder: Path) -> Iterator[ForkedJob]:
        """Do in a forked process what `python SCRIPT` does; it writes where this process writes.

        Args:
            script: the program.
            environment: all of the job's variables.
            folder: its working directory.
        Raises:
            ForkServerError: it could not be forked.
        """
        asked = {"script": str(script), "folder": str(folder), "environment": dict(environment)}
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rw", encoding="ascii") as channel:
            with theirs:
                try:
                    socket.send_fds(self.requests(), [json.dumps(asked).encode()], [1, 2, theirs.fileno()])
                except OSError as error:
                    raise ForkServerError(str(error)) from error
            pid = channel.readline()
            if not pid:
                raise ForkServerError("the process that forks jobs has ended")
            yield ForkedJob(int(pid), channel)


class ForkServers:
    """Those of a run: for jobs with torch, for jobs with language models as well, and for jobs with scikit-learn."""

    def __init__(self, others: Sequence[str] = ()) -> None:
        """
        Args:
            others: names of modules that every job imports besides.
        """
        given = os.environ.get(SERVERS, "")
        self.by_family: dict[str, ForkServer] = {}
        if "=" in given:
            for family, _, number in (one.partition("=") for one in given.split(",")):
                self.by_family[family] = ForkServer((), socket.socket(fileno=int(number)))
        elif not given and can_fork():
            self.by_family = {family: ForkServer((*modules, *others)) for family, (modules, _) in FAMILIES.items()}

    def of(self, script: str) -> ForkServer | None:
        """The server of a script by its name (`train.py`); None where it is to be started by itself."""
        return self.by_family.get(next((name for name, (_, scripts) in FAMILIES.items() if script in scripts), "light"))

    def start_early(self, scripts: Iterable[str]) -> None:
        """Start the server that takes longest to start, where one of these scripts needs it."""
        if "language" in self.by_family and not LANGUAGE_SCRIPTS.isdisjoint(scripts):
            self.by_family["language"].requests()


# ---------------------------------------------------------------- in the process that forks


def as_python(program: str, arguments: list[str], streams: Sequence[int], work: Callable[[], object]) -> NoReturn:
    """In a process that was forked: work as a Python that was started with a program, and end as it would.

    Args:
        streams: file descriptors that take the place of standard input, output and error.
    """
    for target, source in enumerate(streams):
        os.dup2(source, target)
    sys.argv = [program, *arguments]
    code: object = 0
    interrupted = False
    try:
        work()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        traceback.print_exc()
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None: it was closed before (`>&-`)
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def _job(server: int, handlers: Handlers, asked: dict[str, Any], output: Sequence[int], channel: int) -> NoReturn:
    signal.set_wakeup_fd(-1)
    for number, handler in {**handlers, signal.SIGCHLD: signal.SIG_DFL}.items():
        signal.signal(number, handler)
    system = ctypes.CDLL(None)
    system.prctl(_END_WITH_PARENT, signal.SIGTERM)
    script, environment = Path(asked["script"]), asked["environment"]
    if os.getppid() != server or not os.read(channel, 1):  # it ended meanwhile, or who asked has
        os._exit(128 + signal.SIGTERM)
    os.close(channel)
    system.prctl(_NAME, script_name(script).encode())
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # what an import may have asked for
    sys.path[:0] = [str(script.parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    nothing = os.open(os.devnull, os.O_RDONLY)
    as_python(str(script), [], [nothing, *output], lambda: runpy.run_path(str(script), run_name="__main__"))


class _Server:
    def __init__(self, requests: socket.socket, handlers: Handlers) -> None:
        self.requests = requests
        self.handlers = handlers
        """Of signals, in the jobs."""
        self.channels: dict[int, int] = {}
        """To those who asked for jobs, by the process of the job."""

    def serve(self) -> None:
        """Until nobody can ask any more."""
        ends, woken = os.pipe()
        for end in (ends, woken):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken)
        with selectors.DefaultSelector() as ready:
            ready.register(self.requests, selectors.EVENT_READ)
            ready.register(ends, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self.requests:
                        message, given, *_ = socket.recv_fds(self.requests, _LARGEST, 3)
                        if not message:
                            return
                        self._fork(message, given)
                    else:
                        os.read(ends, 4096)
                        self._tell_ends()

    def _fork(self, message: bytes, given: list[int]) -> None:
        asked, server = json.loads(message), os.getpid()
        *output, channel = given
        try:
            pid = os.fork()
        except OSError:  # no memory: who asked reads an end without a number
            for one in given:
                os.close(one)
            return
        if pid == 0:
            self.requests.close()
            for other in self.channels.values():
                os.close(other)
            _job(server, self.handlers, asked, output, channel)
        for one in output:
            os.close(one)
        self.channels[pid] = channel
        self._say(pid, pid)

    def _tell_ends(self) -> None:
        while self.channels:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._say(pid, os.waitstatus_to_exitcode(status))
            os.close(self.channels.pop(pid))

    def _say(self, pid: int, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # who asked has gone
            os.write(self.channels[pid], f"{number}\n".encode())


def main() -> None:
    """`python fork_server.py DESCRIPTOR MODULE ...`: serve those who hold the other end of a socket."""
    number, *modules = sys.argv[1:]
    # meant for the jobs, of whose end this process tells; what was ignored before (nohup) is ignored there, too
    handlers = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    del sys.path[0]  # this folder, whose modules have names that others have, too
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pages that no collection writes to stay shared
    _Server(socket.socket(fileno=int(number)), handlers).serve()


if __name__ == "__main__":
    main()
