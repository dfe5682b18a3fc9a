"""One line that says how far a run is: jobs done, what runs, the time left. Problems stand above it, in full."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from tessera.artifacts.logs import duration

_CLEAR = "\r\x1b[2K"
_BAR = 20
_QUIET_SECONDS = 60.0
"""Off a terminal: a line is written at least so often while jobs run."""
_TRUST = 30.0
"""Seconds of work that estimates are thought right by, before what jobs took says otherwise."""
_BETWEEN_SECONDS = 1.0
"""Off a terminal: least time between the lines of two finished jobs."""


@dataclass
class Job:
    """A job as a person knows it."""

    name: str
    """Rule and what it is of: `train bazaar/id/sasrec/seed-1`."""
    rule: str
    threads: int = 1
    seconds: float | None = None
    """Estimated; None where nobody knows."""
    started: float = field(default_factory=time.monotonic)


def job_name(rule: str, logs: Iterable[str], wildcards: Mapping[str, object]) -> str:
    """Rule and what a job is of, by the place of its log below `logs/`."""
    of = [log.partition("logs/")[2].removesuffix(".log") for log in map(str, logs) if "logs/" in log]
    return of[0].replace("/", " ", 1) if of else " ".join([rule, "/".join(map(str, wildcards.values()))]).strip()


class Line:
    """How far a run is. On a terminal one line is drawn again and again; elsewhere each finished job is a line."""

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        """
        Args:
            stream: where it is written.
            width: columns; None asks the terminal each time.
        """
        self.stream, self._width = stream, width
        self.drawn_again = bool(getattr(stream, "isatty", lambda: False)())
        self.total = self.done = 0
        self.cores = 1
        self.began = time.monotonic()
        self.running: dict[object, Job] = {}
        self.expected: dict[str, list[Job]] = {}
        """Estimated jobs that have not started, by rule."""
        self._finished: list[tuple[Job, float]] = []
        self._since: list[str] = []
        self._said = 0.0
        self._shown = False
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._ticker: threading.Thread | None = None

    # ------------------------------------------------------------ what happens

    def expect(self, jobs: Sequence[Job], cores: int) -> None:
        """What is going to run, in how many cores: the time left is told from it."""
        with self._lock:
            self.total, self.cores = max(self.total, len(jobs)), max(1, cores)
            for job in jobs:
                self.expected.setdefault(job.rule, []).append(job)

    def start(self, key: object, job: Job) -> None:
        """A job starts."""
        with self._lock:
            waiting = self.expected.get(job.rule, [])
            known = next((one for one in waiting if one.name == job.name), None)
            if known is not None:
                waiting.remove(known)
                job.seconds, job.threads = known.seconds, known.threads
            job.started = time.monotonic()
            self.running[key] = job
            self._tick()
            self._draw()

    def finish(self, key: object) -> None:
        """A job is done."""
        with self._lock:
            job = self.running.pop(key, None)
            self.done += 1
            if job is not None:
                self._finished.append((job, time.monotonic() - job.started))
                took = duration(time.monotonic() - job.started)
                self._since.append(f"{job.name} ({took})")
            if self.drawn_again:
                self._draw()
            elif time.monotonic() - self._said >= _BETWEEN_SECONDS or self.done == self.total:
                self._line()

    def fail(self, key: object) -> Job | None:
        """A job ended without its outputs; it may be tried again."""
        with self._lock:
            return self.running.pop(key, None)

    def say(self, text: str) -> None:
        """Something that must be read, above the line."""
        with self._lock:
            self._wipe()
            self.stream.write(text.rstrip("\n") + "\n")
            self._draw()

    def close(self) -> None:
        """Take the line away."""
        self._end.set()
        with self._lock:
            if self._since and not self.drawn_again:
                self._line()
            self.running.clear()
            self._wipe()
            self.stream.flush()

    # ------------------------------------------------------------ how it looks

    def text(self) -> str:
        """`43 of 125 jobs, running train bazaar/id/sasrec/seed-1 and 1 more, 3 min 12 s left`."""
        names = [job.name for job in self.running.values()]
        parts = [f"{self.done} of {self.total} jobs"]
        if names:
            parts.append(f"running {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else ""))
        left = self.left()
        if left is not None and self.done < self.total:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def left(self) -> float | None:
        """Seconds until the end, by the estimates, corrected by what finished jobs took; None where nobody knows."""
        now = time.monotonic()
        known = [(job.seconds, took) for job, took in self._finished if job.seconds is not None]
        slower = (sum(took for _, took in known) + _TRUST) / (sum(estimated for estimated, _ in known) + _TRUST)
        mean = sum(took for _, took in self._finished) / len(self._finished) if self._finished else None

        def expected(job: Job) -> float | None:
            return job.seconds * slower if job.seconds is not None else mean

        work, longest = 0.0, 0.0
        waiting = [job for jobs in self.expected.values() for job in jobs]
        for job, gone in [(one, now - one.started) for one in self.running.values()] + [(one, 0.0) for one in waiting]:
            seconds = expected(job)
            if seconds is None:
                return None
            rest = max(seconds - gone, 0.05 * seconds)
            work += rest * min(job.threads, self.cores)
            longest = max(longest, rest)
        unnamed = self.total - self.done - len(self.running) - len(waiting)
        if unnamed > 0:
            if mean is None:
                return None
            work += unnamed * mean
        return max(work / self.cores, longest)

    def _bar(self) -> str:
        filled = round(_BAR * self.done / self.total) if self.total else 0
        return f"[{'█' * filled}{'·' * (_BAR - filled)}] "

    def _wipe(self) -> None:
        if self._shown:
            self.stream.write(_CLEAR)
            self._shown = False

    def _draw(self) -> None:
        if not self.drawn_again or self._end.is_set() or not self.total:
            return
        width = self._width or shutil.get_terminal_size((100, 24)).columns
        text = self._bar() + self.text()
        self.stream.write(_CLEAR + (text if len(text) < width else text[: width - 2] + "…"))
        self.stream.flush()
        self._shown = True

    def _line(self) -> None:
        """Off a terminal: what was finished since the last line, and where the run stands."""
        self._said = time.monotonic()
        done = ", ".join(self._since[:3]) + (f" and {len(self._since) - 3} more" if len(self._since) > 3 else "")
        self._since = []
        self.stream.write(f"{self.text()}{'; done: ' + done if done else ''}\n")
        self.stream.flush()

    def _tick(self) -> None:
        """From now on, the time left is told again while nothing else happens."""
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._again, daemon=True)
            self._ticker.start()

    def _again(self) -> None:
        while not self._end.wait(1.0):
            with self._lock:
                if self.drawn_again:
                    self._draw()
                elif self.running and time.monotonic() - self._said >= _QUIET_SECONDS:
                    self._line()


class Beside(io.TextIOBase):
    """A text stream that writes above the line: what the program itself prints does not break it."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line, self._kept = line, ""

    def write(self, text: str) -> int:
        """Whole lines are written at once."""
        self._kept += text
        if "\n" in self._kept:
            whole, _, self._kept = self._kept.rpartition("\n")
            self._line.say(whole)
        return len(text)

    def flush(self) -> None:
        """A line that is not whole waits."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind it."""
        return getattr(self._line.stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """Whether the line is on a terminal."""
        return self._line.drawn_again

    def fileno(self) -> int:
        """Of the stream behind it."""
        return self._line.stream.fileno()

    def rest(self) -> None:
        """Write what is no whole line."""
        if self._kept:
            self._line.say(self._kept)
            self._kept = ""


@dataclass
class Watch:
    """Where the workflow and whoever watches it meet: they are in one process."""

    on: bool = False
    """Whether somebody watches; else Snakemake speaks for itself."""
    line: Line | None = None
    """What is shown of a run; None in a dry run."""
    plan: Callable[[Sequence[Any]], Sequence[str]] | None = None
    """What a dry run says of the jobs that would run."""
    closing: Callable[[float], Sequence[str]] | None = None
    """The last lines of a run that ended well, given the seconds that it took."""
    explained: str | None = None
    """Why a run failed, where its stages said so."""


WATCH = Watch()
