"""What went wrong in a run, told last and framed: no job's message stands above the workflow's own lines. And what its
stages warned of."""

from __future__ import annotations

import re
import shutil
import textwrap
from contextlib import suppress
from datetime import datetime
from pathlib import Path

_STAMP = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
_WARNING = re.compile(_STAMP + " WARNING: (.*)")
_LINE = re.compile(_STAMP + " (UNEXPECTED ERROR|ERROR: .*)")
_MOST = 5
_TAIL = 200_000


def framed(text: str) -> str:
    """A text between two lines."""
    width = min(max(map(len, text.splitlines()), default=0), shutil.get_terminal_size((100, 24)).columns)
    rule = "─" * max(width, 20)
    return f"{rule}\n{text}\n{rule}"


def ended_by(signal: str) -> str:
    """How a process ended that a signal (`SIGKILL`) ended, and could not say it itself."""
    return signal + (": the system or a person ended it, often for want of memory" if signal == "SIGKILL" else "")


def failures(logs: Path, since: float) -> list[str]:
    """What the stages below a folder of logs said went wrong since a time (unix seconds), the newest first."""
    messages: list[tuple[float, str]] = []
    for path in logs.rglob("*.log"):
        with suppress(OSError):
            changed = path.stat().st_mtime
            if changed < since:
                continue
            said = _errors(path, since)
            if said:
                stage = path.relative_to(logs).with_suffix("").as_posix()
                indented = textwrap.indent("\n".join(said), "  ")
                messages.append((changed, f"{stage} failed:\n{indented}\n  all of its log: {path}"))
    return [text for _, text in sorted(messages, reverse=True)]


def warned_of(path: Path, since: float) -> list[str]:
    """What a stage warned of in its log since a time (unix seconds): the first of them, and how many more there are."""
    warnings = [match for line in _last_lines(path) if (match := _WARNING.match(line))]
    recent = [match[2] for match in warnings if _is_since(match[1], since)]
    said = list(dict.fromkeys(recent))
    more = len(said) - _MOST
    return said[:_MOST] + ([f"... and {more} more, in {path}"] if more > 0 else [])


def _is_since(stamp: str, since: float) -> bool:
    """Whether a line was written since a time; lines have whole seconds."""
    return datetime.fromisoformat(stamp).timestamp() >= int(since)


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read().decode("utf-8", errors="replace").splitlines()


def _errors(path: Path, since: float) -> list[str]:
    lines = _last_lines(path)
    said: list[str] = []
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None or not _is_since(match[1], since):
            continue
        text = match[2].removeprefix("ERROR: ")
        if match[2] == "UNEXPECTED ERROR":  # the last line of its traceback says what it is
            rest = [other for other in lines[number + 1 :] if other.strip()]
            end = next((i for i, other in enumerate(rest) if _LINE.match(other)), len(rest))
            text = f"an error that nobody expected: {rest[end - 1]}" if end else "an error that nobody expected"
        said.append(text)
    return list(dict.fromkeys(said))[:_MOST]


def summary(logs: Path, since: float) -> str:
    """The framed message at the end of a run that failed; empty where no stage said why."""
    messages = failures(logs, since)
    more = [f"... and {len(messages) - _MOST} stages more"] if len(messages) > _MOST else []
    return framed("\n".join([*messages[:_MOST], *more])) + "\n" if messages else ""
