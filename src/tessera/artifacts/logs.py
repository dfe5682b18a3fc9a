"""What a stage says while it works: a log file, progress with an estimate of the end, errors in one line."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

log = logging.getLogger("tessera")


_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
_EQUAL_BITS = (
    "torch computes this on a GPU in no fixed order, so two runs of this config would differ; set `device: cpu` where "
    "it runs (`training.device`, or `device` of the model), or take a version of torch that can"
)


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM): state is saved on the way out, the exit code is 143."""

    def __init__(self) -> None:
        super().__init__(143)


class _Ending:
    held = 0
    asked = False


def _terminate(*_: object) -> None:
    if _Ending.held:
        _Ending.asked = True
        return
    raise Terminated


@contextmanager
def unbroken() -> Iterator[None]:
    """Let SIGTERM wait until the block is done: what it changes is changed as a whole."""
    _Ending.held += 1
    try:
        yield
    finally:
        _Ending.held -= 1
    if _Ending.asked and not _Ending.held:
        _Ending.asked = False
        raise Terminated


@contextmanager
def stage(path: str | Path | None) -> Iterator[None]:
    """Run a stage: log to `path` and to stderr; tell expected errors (ValueError, OSError) in one line and exit 1.

    The traceback of an unexpected error goes to both, of an expected one to the file alone.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="a", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers[:] = handlers
    log.setLevel(logging.INFO)
    log.propagate = False
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (ValueError, OSError) as error:
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        log.error("ERROR: %s", error)
        raise SystemExit(1) from None
    except Exception as error:
        log.exception("UNEXPECTED ERROR")
        if found := _NOT_DETERMINISTIC.match(str(error)):
            log.error("ERROR: %s: %s", found[1], _EQUAL_BITS)
        raise SystemExit(1) from None
    finally:
        for handler in handlers:
            handler.flush()


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
