"""What a stage says while it works: a log file, progress with an estimate of the end, errors in one line."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tessera.artifacts.arrow import without_pandas
from tessera.artifacts.files import NO_ROOM
from tessera.artifacts.gpus import own_gpus

log = logging.getLogger("tessera")


_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
_EQUAL_BITS = (
    "torch computes this in no fixed order, so two runs of this config would differ; where it runs on a GPU, set "
    "`device: cpu` (`training.device`, or `device` of the model), or take a version of torch that can"
)


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM): state is saved on the way out, the exit code is 143."""

    def __init__(self) -> None:
        super().__init__(143)


_LASTING = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Errors that another attempt would meet as well, unless they are `PassingError`s, too."""


class PassingError(Exception):
    """What another attempt may not meet: a network, or somebody's server, that is away for a while."""


def may_pass(status: int | None) -> bool:
    """Whether what a server refused it may give another time, by the status of HTTP; None is no answer at all."""
    return status is None or status >= 500 or status in (408, 425, 429)


class _Stage:
    log: str | Path | None = None


def stage_log() -> str | Path | None:
    """The log file of the stage that is at work; None outside of one."""
    return _Stage.log


class _Ending:
    held = 0
    asked = False


def _terminate(*_: object) -> None:
    _Ending.asked = True
    if not _Ending.held:
        raise Terminated


@contextmanager
def unbroken() -> Iterator[None]:
    """Let SIGTERM wait until the block is done: what it changes is changed as a whole.

    One that came before and was swallowed (Python ignores what is raised while an object is finalised) ends it too.
    """
    _Ending.held += 1
    try:
        yield
    finally:
        _Ending.held -= 1
    if _Ending.asked and not _Ending.held:
        raise Terminated


class _LogFile(logging.FileHandler):
    """A log on a disk that is full says nothing, and says it quietly: the stage has the error to tell."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class _Lines(logging.Formatter):
    """Lines with the time, and the word by which warnings are found in a log (`artifacts.failures`)."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        said = super().formatMessage(record)
        return said if record.levelno != logging.WARNING else f"{record.asctime} WARNING: {record.message}"


def _write(path: str | Path | None, text: str) -> None:
    """Add to a log file alone; a disk that is full is told by the stage, not by its log."""
    if path:
        with suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def _kept(path: str | Path) -> Path:
    """Where a lasting error waits for the next attempt: Snakemake removes the log of the last one."""
    return Path(path).with_name(f".{Path(path).name}.lasting")


def use_threads(count: int) -> None:
    """Compute in so many threads, here and in processes that are started from here, however many cores there are.

    Sums are split among threads, so that their number shows in the last digits: it is what the config says, and not
    what a machine happens to have.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def end_quickly() -> None:
    """Let the interpreter end without looking for cycles: all that is still there goes with the process.

    It would look through every object of every module again and again, which takes a fifth of the CPU time that loading
    them took: 0.4 s with torch, over a second with transformers. Nothing changes before the end; what is to run
    there (`atexit`) runs.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


@contextmanager
def stage(path: str | Path | None, threads: int = 1, attempt: int | None = None, gpus: int = 0) -> Iterator[None]:
    """Run a stage: log to `path` and to stderr; tell expected errors (ValueError, OSError) in one line and exit 1.

    The traceback of an unexpected error goes to both, of an expected one to the file alone.

    Args:
        threads: how many it computes in (`use_threads`).
        attempt: what is wrong with a config or a file stays wrong: after such an error, a second attempt and later ones
            say so in the log and end at once. 0 is a process that takes part in an attempt.
        gpus: how many it computes on, which other jobs of this machine then do not (`own_gpus`).
    """
    use_threads(threads)
    without_pandas()
    end_quickly()
    _Stage.log = path
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path:
        with suppress(OSError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_LogFile(path, mode="a", encoding="utf-8"))
    if path and attempt:
        with suppress(OSError):
            if attempt > 1 and _kept(path).is_file():
                said = _kept(path).read_text(encoding="utf-8")
                _write(path, f"{said}(not tried again: it would end in the same way)\n")
                raise SystemExit(1)
            _kept(path).unlink(missing_ok=True)
    for handler in handlers:
        handler.setFormatter(_Lines())
    log.handlers[:] = handlers
    log.setLevel(logging.INFO)
    log.propagate = False
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with own_gpus(gpus, log.info):
            yield
    except (ValueError, OSError) as error:
        _write(path, traceback.format_exc())
        log.error("ERROR: %s", _told(error))
        if path and attempt is not None and isinstance(error, _LASTING) and not isinstance(error, PassingError):
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            _write(_kept(path), f"{traceback.format_exc()}{now} ERROR: {_told(error)}\n")
        raise SystemExit(1) from None
    except MemoryError as error:
        _write(path, traceback.format_exc())
        log.error("ERROR: not enough memory%s", f" ({error})" if str(error) else "")
        raise SystemExit(1) from None
    except Exception as error:
        log.exception("UNEXPECTED ERROR")
        if match := _NOT_DETERMINISTIC.match(str(error)):
            log.error("ERROR: %s: %s", match[1], _EQUAL_BITS)
        raise SystemExit(1) from None
    finally:
        _Ending.asked = False
        _Stage.log = None
        for handler in handlers:
            with suppress(OSError):
                handler.flush()


def _told(error: Exception) -> str:
    """An error as a person reads it; the system's own begin with the file, not with a number."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        if error.errno in NO_ROOM:
            return f"{error.strerror}, below {Path.cwd()} or {tempfile.gettempdir()}"
    return str(error) or type(error).__name__


class Progress:
    """A bar on a terminal; in a log, a line every `seconds` with the count, the rate and the time left."""

    def __init__(self, label: str, total: int | None = None, unit: str = "", seconds: float = 10.0) -> None:
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.done = 0
        self.start = self.last = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit=unit or "it", leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
        seconds = time.monotonic() - self.start
        if kind is None and seconds >= self.seconds:
            log.info("%s: %s %s in %s", self.label, f"{self.done:,}", self.unit, duration(seconds))

    def update(self, count: int = 1, note: str = "") -> None:
        """Count `count` more; `note` is shown beside the rate."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.last < self.seconds:
            return
        self.last = now
        rate = self.done / (now - self.start)
        if self.total:
            left = duration((self.total - self.done) / max(rate, 1e-9))
            log.info(
                "%s: %s of %s %s, %.3g/s, %s left %s",
                self.label, f"{self.done:,}", f"{self.total:,}", self.unit, rate, left, note,
            )  # fmt: skip
        else:
            log.info("%s: %s %s, %.3g/s %s", self.label, f"{self.done:,}", self.unit, rate, note)


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 07 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
