"""Snakemake's events as one line of progress: `snakemake --logger tessera`, which is what `./run` does.

Snakemake finds logger plugins by the names of packages, hence one beside `tessera`, which knows nothing of Snakemake.
It imports every plugin when it starts, before the Snakefile says which `tessera` is meant (that of its own folder):
so the library is imported when the handler is made, and not with this module.
Snakemake goes on writing its full text to its log file. What jobs write to stderr, which is in their own logs too, is
kept until the end, and added to that file where something failed.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from logging import ERROR, INFO, WARNING, LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_NOTHING = "Nothing to be done"
_STATUS = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)")
_JOBS_FAILED = "At least one job did not complete successfully"
_INTERRUPTED = "Terminating processes on user request"
_ENDS = ("Will exit after", _INTERRUPTED)
"""What Snakemake says when it is asked to end: once more at every job, and at once."""
_TAIL = 20


class LogHandler(LogHandlerBase):  # type: ignore[misc]
    """Draws the line, and says in full what a person must know."""

    def __post_init__(self) -> None:
        from tessera.artifacts.failures import ended_by, warned_of
        from tessera.watch import line as watch

        self.watch, self.ended_by, self.warned_of = watch, ended_by, warned_of
        self.began = time.monotonic()
        self.logs: dict[Any, tuple[str, list[str], float]] = {}
        """Of every job at work: its name, its logs, and when it started."""
        self.failed = self.jobs_failed = self.nothing = False
        self.ending = self.interrupted = False
        """Whether the run was asked to end, and whether its jobs were, too: then none of them has failed."""
        self.ended: str | None = None
        """How the last job ended whose failure has not been told."""
        self.untold = ""
        """The text in which it stood: whether a job's failure follows is not known yet."""
        self.closed = False
        self.complete: str | None = None
        """Snakemake's own log file."""
        self.dry = bool(self.common_settings.dryrun)
        self.stream = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.line = watch.Line(self.stream)
        self.asked: list[dict[str, Any]] = []
        """Jobs that a dry run would run."""
        watch.WATCH.on = True
        if self.dry:
            return
        watch.WATCH.line = self.line
        # What jobs write goes to a file, for it would break the line; what this process says stands above the line.
        self.unheard = tempfile.TemporaryFile()  # noqa: SIM115
        self.stderr, self.beside = sys.stderr, watch.Beside(self.line)
        sys.stderr = self.beside  # type: ignore[assignment]
        os.dup2(self.unheard.fileno(), 2)

    # ------------------------------------------------------------ what Snakemake asks of a plugin

    @property
    def writes_to_stream(self) -> bool:
        """It takes the place of Snakemake's text."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake's log file stays its own."""
        return False

    @property
    def has_filter(self) -> bool:
        """What is shown is chosen here."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Texts of Snakemake are shown in its own form."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False

    # ------------------------------------------------------------ events

    def emit(self, record: LogRecord) -> None:
        """One event."""
        with suppress(BrokenPipeError):
            try:
                self._emit(record, getattr(record, "event", None))
            except BrokenPipeError:
                raise
            except Exception:
                self.handleError(record)

    def _emit(self, record: LogRecord, event: LogEvent | None) -> None:
        fields = record.__dict__
        if self.dry and event == LogEvent.JOB_INFO:
            self.asked.append(fields)
        elif event == LogEvent.RUN_INFO:
            self.line.total = int((fields.get("stats") or {}).get("total", 0))
        elif event == LogEvent.JOB_INFO:
            name = self.watch.job_name(fields["rule_name"], fields["log"] or [], dict(fields["wildcards"] or {}))
            threads = int(fields.get("threads") or 1)
            self.logs[fields["jobid"]] = name, list(fields["log"] or []), time.time()
            self.line.start(fields["jobid"], self.watch.Job(name, fields["rule_name"], threads))
        elif event == LogEvent.JOB_FINISHED:
            self._warnings(fields["job_id"])
            self.line.finish(fields["job_id"])
        elif event == LogEvent.PROGRESS:
            # under --until it goes on counting jobs that will not run
            self.line.total = self.line.total or int(fields.get("total") or 0)
        elif event == LogEvent.JOB_ERROR:
            self._job_failed(record)
        elif record.levelno >= WARNING:
            self._problem(record, event)
        elif record.levelno == INFO and event is None:
            self._aside(str(record.msg or ""))

    def _warnings(self, job: Any) -> None:
        """What a job warned of, which stands in its log, is said where a person looks."""
        name, logs, started = self.logs.pop(job, ("", [], 0.0))
        for path in map(Path, logs):
            with suppress(OSError):
                for text in self.warned_of(path, started):
                    self.line.say(f"WARNING: {name}: {text}")

    def _job_failed(self, record: LogRecord) -> None:
        fields = record.__dict__
        self._warnings(fields["jobid"])
        if self.interrupted:
            self.line.fail(fields["jobid"])
            return
        logs = list(fields["log"] or [])
        job = self.line.fail(fields["jobid"])
        name = job.name if job is not None else self.watch.job_name(fields["rule_name"], logs, {})
        ended, self.ended = self.ended, None
        why = f" ({self.ended_by(ended)})" if ended else ""
        self.failed = self.jobs_failed = True
        if self.common_settings.show_failed_logs:
            self.line.say(self.format(record))
        self.line.say(f"FAILED: {name}{why}" + (f"; its log: {', '.join(logs)}" if logs else ""))

    def _problem(self, record: LogRecord, event: LogEvent | None) -> None:
        text = self.format(record) or ""
        status = _STATUS.search(text)
        if (self.ending and _JOBS_FAILED in text) or (self.interrupted and status is not None):
            return
        self.failed = self.failed or record.levelno >= ERROR
        if event == LogEvent.ERROR and status is not None:
            # the command line of a job: of it, a person needs how it ended
            self.ended, self.untold = status[2] or f"exit status {status[1]}", text
        elif text and not (self.jobs_failed and _JOBS_FAILED in text):
            self.line.say(text)

    def _aside(self, text: str) -> None:
        """Of what Snakemake tells on its way, where its log is, and that it ends or waits."""
        if text.startswith("Complete log(s): "):
            self.complete = text.removeprefix("Complete log(s): ")
        elif text.startswith(_NOTHING):
            self.nothing = True
            if not self.dry:
                self.line.say(_NOTHING + ".")
        elif text.startswith(_ENDS):
            if not self.ending:
                self.line.say(text)
            self.ending, self.interrupted = True, self.interrupted or text.startswith(_INTERRUPTED)
        elif text.startswith(("Unlocking", "Trying to")):
            self.line.say(text)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Give stderr back, and say how the run ended."""
        if not self.closed:
            self.closed = True
            if self.dry:
                self._plan()
            else:
                self._end()
        super().close()

    def _plan(self) -> None:
        """What a dry run is asked for: the jobs, and what they will take."""
        if not self.failed and self.watch.WATCH.plan is not None:
            print("\n".join(self.watch.WATCH.plan(self.asked)), flush=True)
        self.stream.flush()

    def _end(self) -> None:
        self.line.close()
        self.beside.rest()
        self.watch.WATCH.line = None
        sys.stderr.flush()
        sys.stderr = self.stderr
        os.dup2(self.stream.fileno(), 2)
        with suppress(OSError, ValueError):
            if self.failed:
                self._tell_failure()
            elif self.ending and self.line.done < self.line.total:
                stands = f"{self.line.done} of {self.line.total} jobs are done"
                self.stream.write(f"The run was asked to end: {stands}, and the same command goes on.\n")
            elif self.watch.WATCH.closing is not None and (self.nothing or 0 < self.line.total <= self.line.done):
                self.stream.write("\n".join(self.watch.WATCH.closing(time.monotonic() - self.began)) + "\n")
            self.stream.flush()

    def _tell_failure(self) -> None:
        if self.untold and not self.jobs_failed:  # a program failed that was no job's
            self.stream.write(self.untold.rstrip("\n") + "\n")
        self.unheard.seek(0)
        said = self.unheard.read().decode("utf-8", errors="replace")
        if self.complete is not None and said:
            with suppress(OSError), Path(self.complete.split(", ")[0]).open("a", encoding="utf-8") as file:
                file.write(f"\nWhat jobs wrote to stderr:\n{said}")
        if not self.watch.WATCH.explained and said.strip():
            self.stream.write("\n".join(["What jobs said last:", *said.rstrip().splitlines()[-_TAIL:]]) + "\n")
        if self.complete is not None:
            self.stream.write(f"All that was said: {self.complete}\n")
        self.stream.write(self.watch.WATCH.explained or "")
